// What libFuzzer calls for each input, compiled by `Tests/Fuzz/run` together with the sources of what is fuzzed. One
// program for all targets; `APUS_FUZZ_TARGET` says which: `frame` (frames and all that is decoded out of them), `json`,
// `format` (the parsers of the store's files), `store` (whole damaged stores), `metadata` (the tables under config/),
// and `canary`, whose planted bug must be found.

import FastJSON
import Glibc
import LinuxSystem
import MessageModel

@testable import MessageStore
@testable import MetadataStore

private nonisolated(unsafe) let scratch = HeaderScratch()
private let target = getenv("APUS_FUZZ_TARGET").map { String(cString: $0) } ?? ""

/// One input; libFuzzer keeps those that reach new code.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: start, count: count)
    switch target {
    case "frame": frame(bytes)
    case "json": json(bytes)
    case "format": FormatTarget.run(bytes)
    case "store": StoreTarget.run(bytes)
    case "metadata": metadata(bytes)
    case "canary":
        demand(
            !(count >= 3 && bytes[0] == 0x7b && bytes[1] == 0x22 && bytes[2] == 0x21), "the canary's planted bug")
    default: fatalError("APUS_FUZZ_TARGET names no target")
    }
    return 0
}

private func frame(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 8 else { return }
    // The length word is put right, so that inputs get past it.
    var input = [UInt8](bytes)
    withUnsafeBytes(of: UInt32(bytes.count - 4).bigEndian) { input.replaceSubrange(0..<4, with: $0) }
    input.withUnsafeBytes { raw in
        guard let frame = try? RemotingFrame.parse(raw, scratch: scratch) else { return }
        _ = try? SendMessageRequestHeader(frame)
        _ = try? PullMessageRequestHeader(frame)
        _ = frame.extFields.dictionary()
        _ = frame.remark
        _ = try? HeartbeatData(body: frame.body)
        _ = try? RegisterBrokerBody(body: frame.body, compressed: frame.opaque & 1 == 0)
        _ = try? TopicRouteData(body: frame.body)
        _ = try? ClusterInfo(body: frame.body)
        _ = try? LockBatchRequestBody(body: frame.body)
        _ = try? ConsumerOffsetSerializeWrapper(body: frame.body)
        _ = try? SubscriptionGroupWrapper(body: frame.body)
        _ = try? MessageExt.decodeAll(frame.body)
        _ = MessageProperties.decode(frame.body)
    }
}

private func json(_ bytes: UnsafeRawBufferPointer) {
    guard let value = try? JSONValue(parsing: bytes) else { return }
    for options: JSONWriter.Options in [[], [.pretty], [.standard, .sorted]] {
        guard let back = try? JSONValue(parsing: value.bytes(options)) else {
            fatalError("what was written is not read")
        }
        demand(options.contains(.standard) || back == value, "what was written reads differently")
    }
}

/// A table of config/ and its backup, with anything in them: it loads or says why not, and saving a good one makes it
/// loadable.
private func metadata(_ bytes: UnsafeRawBufferPointer) {
    guard let choice = bytes.first else { return }
    let path = "/s/config/topics.json"
    let split = bytes.lastIndex(of: 0) ?? 0
    var files = [path: [UInt8](bytes[(split + 1)...])]
    if split > 0 { files[path + ".bak"] = [UInt8](bytes[1..<max(1, split)]) }
    if choice & 0x80 != 0 { files[path] = nil }
    let file = MetadataFile(path: path, disk: FuzzDisk(files: files))
    let offsets = ConsumerOffsetManager()
    func isGood(_ bytes: [UInt8]) -> Bool {
        guard let value = try? JSONValue(parsing: bytes) else { return false }
        switch choice % 3 {
        case 0: return (try? TopicConfigSerializeWrapper(json: value)) != nil
        case 1: return (try? SubscriptionGroupWrapper(json: value)) != nil
        default:
            _ = try? offsets.load(value)
            return true
        }
    }
    _ = try? file.load(isGood: isGood)
    do {
        let good = offsets.json.bytes(.pretty)
        try file.save(good)
        guard case .current(good) = try file.load(isGood: { $0 == good }) else {
            fatalError("what was saved is not loaded")
        }
    } catch {
        fatalError("saving failed: \(error)")
    }
}

/// A check whose words are printed in optimized code too.
func demand(_ holds: Bool, _ what: @autoclosure () -> String = "a demand is not met", line: Int = #line) {
    if !holds { fatalError("line \(line): \(what())") }
}
