// The SQL92 plugin: RocketMQ's `SQL92` expressions over message properties.
//
// An expression becomes a flat program; a batch runs it over each message's properties where they lie in the log.
// Answers are SQL's three-valued ones. A comparison with a missing property, or of a number with what is no number, is
// unknown. Only what is true is delivered. plugins/README.md lists where that differs from Apache's evaluator.

public import CFilterPlugin
internal import Glibc

private func compile(
    _ expression: UnsafePointer<CChar>?, _ length: Int, _ compiled: UnsafeMutablePointer<apus_filter_compiled>?
) -> Int32 {
    guard let compiled else { return APUS_FILTER_FAILED }
    let plan: ProgramPlan
    do throws(SyntaxError) {
        plan = try Compiler.compile(UnsafeRawBufferPointer(start: expression, count: length))
    } catch {
        return apus_filter_refuse(compiled, error.position, error.reason, error.reason.utf8.count)
    }
    if let call = plan.calls.first, compiled.pointee.struct_size < UInt32(MemoryLayout<apus_filter_compiled>.size) {
        let reason = "this host is too old to call plugins from SQL92"
        return apus_filter_refuse(compiled, call.typePosition, reason, reason.utf8.count)
    }
    let program = Program(plan)
    if program.calls.count > 0 {
        compiled.pointee.calls = UnsafePointer(program.calls.baseAddress)
        compiled.pointee.call_count = UInt32(program.calls.count)
    }
    if let codes = program.tagsCodes, codes.count <= 1024 {
        compiled.pointee.tags_codes_kind = APUS_FILTER_TAGS_CODES_PREFILTER
        compiled.pointee.tags_codes = UnsafePointer(codes.baseAddress)
        compiled.pointee.tags_code_count = UInt32(codes.count)
    }
    compiled.pointee.needs = program.needsProperties ? UInt64(APUS_FILTER_NEEDS_PROPERTIES) : 0
    compiled.pointee.program = Unmanaged.passRetained(program).toOpaque()
    return APUS_FILTER_OK
}

private func matchBatch(
    _ program: UnsafeMutableRawPointer?, _ units: UnsafePointer<apus_filter_unit>?, _ count: UInt32,
    _ bitmap: UnsafeMutablePointer<UInt8>?
) -> Int32 {
    guard let program, let units, let bitmap else { return APUS_FILTER_FAILED }
    Unmanaged<Program>.fromOpaque(program).takeUnretainedValue()
        .match(units, count: count, bitmap)
    return APUS_FILTER_OK
}

private func release(_ program: UnsafeMutableRawPointer?) {
    guard let program else { return }
    Unmanaged<Program>.fromOpaque(program).release()
}

/// One expression that uses most of the machine, true for one message and unknown for another.
private func selfTest(_ reason: UnsafeMutablePointer<CChar>?, _ capacity: Int) -> Int32 {
    let expression: StaticString = "a BETWEEN 3 AND 2e1 AND TAGS IN ('x','y') AND NOT (b = 'n' OR c IS NOT NULL)"
    let message: StaticString = "a\u{1}10.0\u{2}TAGS\u{1}y\u{2}b\u{1}z"
    var failure = "the expression of the self-test is refused"
    do throws(SyntaxError) {
        let text = UnsafeRawBufferPointer(start: expression.utf8Start, count: expression.utf8CodeUnitCount)
        let program = Program(try Compiler.compile(text))
        var units = [apus_filter_unit(), apus_filter_unit()]
        units[0].properties = message.utf8Start
        units[0].properties_size = UInt32(message.utf8CodeUnitCount)
        var bitmap: UInt8 = 0
        program.match(units, count: 2, &bitmap)
        if bitmap == 1 { return APUS_FILTER_OK }
        failure = "the expression of the self-test gives \(bitmap), not 1"
    } catch {
        failure += " at \(error.position): \(error.reason)"
    }
    apus_filter_say(reason, capacity, failure, failure.utf8.count)
    return APUS_FILTER_FAILED
}

/// Made at the first call and never freed: the host may look at it until the process ends.
private nonisolated(unsafe) let table = apus_filter_make_plugin(
    "sql92", "SQL92", "1.0", UInt64(APUS_FILTER_NEEDS_PROPERTIES), compile, matchBatch, release, selfTest)

/// The one exported symbol: see apus_filter.h.
@c(apus_filter_plugin_entry)
public func sql92FilterPluginEntry(_ host: UnsafePointer<apus_filter_host>?) -> UnsafePointer<apus_filter_plugin>? {
    table
}
