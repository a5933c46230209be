// What libFuzzer calls for the SQL92 plugin: a program of its own, made by `Tests/Fuzz/run` of the plugin's sources. A
// plugin knows nothing of the rest.

import CFilterPlugin
import Glibc

/// One input; libFuzzer keeps those that reach new code.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    fuzzSQL(UnsafeRawBufferPointer(start: start, count: count))
    return 0
}

/// An expression up to the first 0, then the properties of a message. What is refused says where; what is taken is run
/// over memory of exactly the message's size, and never agrees with its own opposite, nor with a message its prefilter
/// excludes.
private func fuzzSQL(_ input: UnsafeRawBufferPointer) {
    let end = input.firstIndex(of: 0) ?? input.count
    let text = UnsafeRawBufferPointer(rebasing: input[..<end])
    let message = input[min(end + 1, input.count)...]
    guard let yes = sqlProgram(text) else { return }
    let matches = sqlMatches(yes, message)
    let opposite = Array("NOT (".utf8) + Array(text) + Array(")".utf8)
    // Nil: too deep now.
    guard let no = opposite.withUnsafeBytes({ sqlProgram($0) }) else { return }
    precondition(!(matches && sqlMatches(no, message)), "an expression and its opposite both hold")
    guard matches, let codes = yes.tagsCodes else { return }
    var unit = apus_filter_unit()
    let tag = Array(message).withUnsafeBufferPointer { bytes -> Int64? in
        unit.properties = bytes.baseAddress
        unit.properties_size = UInt32(bytes.count)
        // The last of several properties with one name counts.
        var found: Int64?
        for pair in bytes.split(separator: 2) where pair.starts(with: Array("TAGS\u{1}".utf8)) && pair.count > 5 {
            let tag = UnsafeBufferPointer(rebasing: pair.dropFirst(5))
            found = apus_filter_tags_code(tag.baseAddress, tag.count)
        }
        return found
    }
    precondition(tag.map { codes.contains($0) } ?? false, "a match that the prefilter excludes")
}

private func sqlProgram(_ text: UnsafeRawBufferPointer) -> Program? {
    do throws(SyntaxError) {
        return Program(try Compiler.compile(text))
    } catch {
        precondition(
            error.position >= 0 && error.position <= text.count && !error.reason.isEmpty,
            "a refusal without a place")
        return nil
    }
}

private func sqlMatches(_ program: Program, _ message: Slice<UnsafeRawBufferPointer>) -> Bool {
    let exact = UnsafeMutablePointer<UInt8>.allocate(capacity: max(message.count, 1))
    defer { exact.deallocate() }
    for (index, byte) in message.enumerated() { exact[index] = byte }
    var unit = apus_filter_unit()
    unit.properties = UnsafePointer(exact)
    unit.properties_size = UInt32(message.count)
    var bitmap: UInt8 = 0
    program.match(&unit, count: 1, &bitmap)
    return bitmap == 1
}
