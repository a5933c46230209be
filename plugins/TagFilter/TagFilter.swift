// The tag plugin: RocketMQ's `TAG` expressions, `*` or `TagA || TagB`.
//
// It answers "these tags codes are all I need", so the broker-store compares integers in its own consume queue and
// never asks for a batch. Tags with one hash ("Aa", "BB") have one code and pass together; the client compares the tags
// themselves, as RocketMQ's clients always do.

public import CFilterPlugin
internal import Glibc

/// Tags one expression may name: keeps a program below 32 KiB, and is far above what RocketMQ's clients send.
private let maximumTags = 4096

/// What the plugin keeps of a compiled expression until `release`.
private final class TagProgram {
    let codes: UnsafeMutableBufferPointer<Int64>
    let everything: Bool

    init(codes distinct: Set<Int64>, everything: Bool) {
        codes = .allocate(capacity: distinct.count)
        _ = codes.initialize(from: distinct.sorted())
        self.everything = everything
    }

    deinit {
        codes.deinitialize()
        codes.deallocate()
    }
}

private func isSpace(_ byte: UInt8) -> Bool { byte <= 0x20 }

/// Cuts spaces and control characters off both ends, as Java's `String.trim` does.
private func trimmed(_ text: Slice<UnsafeRawBufferPointer>) -> Slice<UnsafeRawBufferPointer> {
    var text = text
    while let first = text.first, isSpace(first) { text.removeFirst() }
    while let last = text.last, isSpace(last) { text.removeLast() }
    return text
}

private func refuse(
    _ compiled: UnsafeMutablePointer<apus_filter_compiled>, at position: Int, _ reason: String
) -> Int32 {
    apus_filter_refuse(compiled, position, reason, reason.utf8.count)
}

private func compile(
    _ expression: UnsafePointer<CChar>?, _ length: Int, _ compiled: UnsafeMutablePointer<apus_filter_compiled>?
) -> Int32 {
    guard let compiled else { return APUS_FILTER_FAILED }
    let text = UnsafeRawBufferPointer(start: expression, count: length)
    let whole = trimmed(text[...])
    // RocketMQ's clients write "*" for a subscription without a filter; an empty text means the same to them.
    let everything = whole.isEmpty || (whole.count == 1 && whole.first == UInt8(ascii: "*"))
    var codes: Set<Int64> = []
    if !everything {
        var start = text.startIndex
        var position = start
        func addTag(upTo end: Int) {
            let tag = trimmed(text[start..<end])
            guard !tag.isEmpty else { return }
            let bytes = UnsafeRawBufferPointer(rebasing: tag).assumingMemoryBound(to: UInt8.self)
            codes.insert(apus_filter_tags_code(bytes.baseAddress, bytes.count))
        }
        while position < text.endIndex {
            if text[position] == UInt8(ascii: "|"), position + 1 < text.endIndex,
                text[position + 1] == UInt8(ascii: "|")
            {
                addTag(upTo: position)
                position += 2
                start = position
            } else {
                position += 1
            }
            if codes.count > maximumTags {
                return refuse(compiled, at: start, "more than \(maximumTags) tags in one expression")
            }
        }
        addTag(upTo: text.endIndex)
        if codes.isEmpty {
            return refuse(compiled, at: 0, "no tag in the expression; write *, or tags with || between them")
        }
    }
    let program = TagProgram(codes: codes, everything: everything)
    compiled.pointee.tags_codes_kind = everything ? APUS_FILTER_MATCHES_EVERYTHING : APUS_FILTER_TAGS_CODES_EXACT
    compiled.pointee.tags_codes = UnsafePointer(program.codes.baseAddress)
    compiled.pointee.tags_code_count = UInt32(program.codes.count)
    compiled.pointee.needs = 0
    compiled.pointee.program = Unmanaged.passRetained(program).toOpaque()
    return APUS_FILTER_OK
}

/// Never needed by a host that takes the tags codes; kept because a host may ask all the same.
private func matchBatch(
    _ program: UnsafeMutableRawPointer?, _ units: UnsafePointer<apus_filter_unit>?, _ count: UInt32,
    _ bitmap: UnsafeMutablePointer<UInt8>?
) -> Int32 {
    guard let program, let units, let bitmap else { return APUS_FILTER_FAILED }
    let tags = Unmanaged<TagProgram>.fromOpaque(program).takeUnretainedValue()
    for index in 0..<count {
        let code = units[Int(index)].tags_code
        if tags.everything || tags.codes.contains(code) { apus_filter_set(bitmap, index) }
    }
    return APUS_FILTER_OK
}

private func release(_ program: UnsafeMutableRawPointer?) {
    guard let program else { return }
    Unmanaged<TagProgram>.fromOpaque(program).release()
}

/// Java's `"TagA".hashCode()`, and two tags with one hash.
private func selfTest(_ reason: UnsafeMutablePointer<CChar>?, _ capacity: Int) -> Int32 {
    func code(_ tag: StaticString) -> Int64 { apus_filter_tags_code(tag.utf8Start, tag.utf8CodeUnitCount) }
    if code("TagA") == 2_598_919, code("Aa") == code("BB") { return APUS_FILTER_OK }
    let failure = "the tags codes are not Java's hash codes"
    apus_filter_say(reason, capacity, failure, failure.utf8.count)
    return APUS_FILTER_FAILED
}

/// Made at the first call and never freed: the host may look at it until the process ends.
private nonisolated(unsafe) let table = apus_filter_make_plugin(
    "tag", "TAG", "1.0", 0, compile, matchBatch, release, selfTest)

/// The one exported symbol: see apus_filter.h.
@c(apus_filter_plugin_entry)
public func tagFilterPluginEntry(_ host: UnsafePointer<apus_filter_host>?) -> UnsafePointer<apus_filter_plugin>? {
    table
}
