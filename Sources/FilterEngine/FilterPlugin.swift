import CFilterPlugin
import Glibc
import LinuxSystem
import WorkerProtocol

/// A loaded plugin. Never unloaded: `dlclose` of a library with a Swift runtime in it crashes, and a program's memory
/// may belong to it. A new version of a plugin is taken by a fresh worker process.
package final class FilterPlugin {
    /// The file it was loaded from.
    package let path: String
    /// As the plugin reports it.
    package let name: String
    /// The expression type it serves.
    package let type: String
    /// Its version, for people.
    package let release: String
    /// The `APUS_FILTER_NEEDS_…` bits of the plugin's programs together.
    let capabilities: UInt64
    let file: PluginFile
    /// Kept as long as the library, whose name leads there.
    private let image: FrozenFile?
    private let conduct: PluginConduct?
    private let compileFunction: CompileFunction
    private let matchFunction: MatchFunction
    private let releaseFunction: ReleaseFunction

    typealias CompileFunction =
        @convention(c) (UnsafePointer<CChar>?, Int, UnsafeMutablePointer<apus_filter_compiled>?) -> Int32
    typealias MatchFunction =
        @convention(c) (
            UnsafeMutableRawPointer?, UnsafePointer<apus_filter_unit>?, UInt32, UnsafeMutablePointer<UInt8>?
        ) -> Int32
    typealias ReleaseFunction = @convention(c) (UnsafeMutableRawPointer?) -> Void

    /// Size of the version 1 table: what a plugin has at least.
    static let tableSize = UInt32(MemoryLayout<apus_filter_plugin>.size)
    private static let longestName = 64

    /// Loads a file and checks it, in the order of `FilterPluginError`'s cases. `loaded` are the plugins already there.
    /// - Parameters:
    ///   - path: what the file is called.
    ///   - image: what is loaded instead: a copy that cannot change; nil: the file itself.
    ///   - conduct: guards the calls of the plugin; nil: they are not guarded.
    static func load(
        path: String, image: FrozenFile? = nil, file: PluginFile, host: FilterHost, after loaded: [FilterPlugin],
        conduct: PluginConduct? = nil
    ) throws(FilterPluginError) -> FilterPlugin {
        if let conduct, conduct.diesWhenLoaded(file), let reason = conduct.refusal(file) {
            throw .harmful(path: path, reason: reason)
        }
        func guarded<R>(_ body: () -> R) -> R { conduct?.call(file, .load, body) ?? body() }
        // The loader knows libraries by the paths they were opened by: a path that came to mean another copy would give
        // the old one.
        if let image { _ = Unmanaged.passRetained(KeptImage(image)) }
        // RTLD_NOW: a missing symbol is refused here, not in the middle of a batch. RTLD_LOCAL: plugins do not see each
        // other's symbols.
        guard let handle = guarded({ dlopen(image?.path ?? path, RTLD_NOW | RTLD_LOCAL) }) else {
            var reason = dlerror().map { String(cString: $0) } ?? "no reason given"
            if let image { reason.replace(image.path, with: path) }
            throw .notALibrary(path: path, reason: reason)
        }
        guard let symbol = dlsym(handle, APUS_FILTER_ENTRY_SYMBOL) else { throw .noEntry(path: path) }
        let entry = unsafeBitCast(symbol, to: apus_filter_plugin_entry_function.self)
        guard let table = guarded({ entry(host.pointer) }) else { throw .noTable(path: path) }
        // The first eight bytes are the same in every version; nothing else is looked at before they are right.
        guard table.pointee.abi_version == UInt32(APUS_FILTER_ABI_VERSION) else {
            throw .wrongVersion(
                path: path, found: table.pointee.abi_version, expected: UInt32(APUS_FILTER_ABI_VERSION))
        }
        guard table.pointee.struct_size >= tableSize, table.pointee.struct_size <= 4096 else {
            throw .wrongStructSize(path: path, found: table.pointee.struct_size, expected: tableSize)
        }
        let plugin = try FilterPlugin(
            path: path, image: image, table: table.pointee, file: file, conduct: conduct)
        if let other = loaded.first(where: { $0.name == plugin.name }) {
            throw .duplicateName(path: path, name: plugin.name, takenBy: other.path)
        }
        if let other = loaded.first(where: { $0.type == plugin.type }) {
            throw .duplicateType(path: path, type: plugin.type, takenBy: other.path)
        }
        if let selfTest = table.pointee.self_test {
            let failure = withErrorBuffer { buffer in
                guarded { selfTest(buffer.baseAddress, buffer.count) } == APUS_FILTER_OK ? nil : text(in: buffer)
            }
            if let failure { throw .failedSelfTest(path: path, reason: failure) }
        }
        return plugin
    }

    private init(
        path: String, image: FrozenFile?, table: apus_filter_plugin, file: PluginFile, conduct: PluginConduct?
    ) throws(FilterPluginError) {
        self.path = path
        self.image = image
        self.file = file
        self.conduct = conduct
        name = try Self.label(table.name, "name", path)
        type = try Self.label(table.type, "type", path)
        release = table.release_text.map { String(cString: $0) } ?? ""
        capabilities = table.capabilities
        guard let compile = table.compile else { throw .incompleteTable(path: path, what: "compile is NULL") }
        guard let match = table.match_batch else { throw .incompleteTable(path: path, what: "match_batch is NULL") }
        guard let release = table.release else { throw .incompleteTable(path: path, what: "release is NULL") }
        let known = UInt64(APUS_FILTER_NEEDS_PROPERTIES | APUS_FILTER_NEEDS_BODY)
        guard capabilities & ~known == 0 else {
            throw .incompleteTable(
                path: path, what: "it needs capabilities this host does not know (bits \(capabilities & ~known))")
        }
        compileFunction = compile
        matchFunction = match
        releaseFunction = release
    }

    private static func label(
        _ text: UnsafePointer<CChar>?, _ what: String, _ path: String
    ) throws(FilterPluginError) -> String {
        guard let text else { throw .incompleteTable(path: path, what: "\(what) is NULL") }
        let length = strnlen(text, longestName + 1)
        guard length > 0, length <= longestName else {
            throw .incompleteTable(path: path, what: "\(what) must have 1 to \(longestName) bytes")
        }
        return String(cString: text)
    }

    private var failures = PluginFailures()
    /// All calls of compile and match_batch.
    package private(set) var calls: UInt64 = 0

    private func count(_ expression: String, succeeded: Bool) {
        calls &+= 1
        failures.note(expression, succeeded: succeeded, now: CallGuard.now)
    }

    /// What is wrong with it while it fails: for status lines; nil: nothing.
    package var failing: String? {
        failures.worst(now: CallGuard.now()).map { expression, count in
            "plugin \(name) failed its last \(count) calls for \"\(expression.prefix(100))\": its consumers get nothing"
        }
    }

    /// What `compile` of a plugin answered.
    enum Compiled {
        case program(FilterProgram)
        case refused(position: Int32, reason: String)
        case failed(reason: String)
    }

    /// Why it is not called now, because of what it did; nil: it is.
    package var unavailability: String? { conduct?.refusal(file).map { "plugin \(name) is \($0)" } }
    /// What is known against it, whether it is called or not.
    package var history: String? { conduct?.history(file) }

    private func guarded<R>(_ phase: PluginPhase, _ body: () -> R) -> R {
        conduct?.call(file, phase, body) ?? body()
    }

    /// The most tags codes a program may ask for: more would not fit the broker-store's answer.
    static let maximumTagsCodes = WorkerMessage.filterTagsCodesMax

    func compile(_ expression: String) -> Compiled {
        var expression = expression
        return Self.withErrorBuffer { buffer in
            var compiled = apus_filter_compiled(
                struct_size: UInt32(MemoryLayout<apus_filter_compiled>.size),
                tags_codes_kind: APUS_FILTER_TAGS_CODES_UNUSED, program: nil, tags_codes: nil, tags_code_count: 0,
                error_position: 0, error_text: buffer.baseAddress, error_capacity: UInt32(buffer.count),
                reserved_32: 0, needs: capabilities, calls: nil, call_count: 0, reserved_32_2: 0)
            let status = expression.withUTF8 { utf8 in
                utf8.withMemoryRebound(to: CChar.self) { text in
                    guarded(.compile) { compileFunction(text.baseAddress, text.count, &compiled) }
                }
            }
            count(expression, succeeded: status == APUS_FILTER_OK || status == APUS_FILTER_REFUSED)
            switch status {
            case APUS_FILTER_OK:
                return program(from: compiled, expression: expression)
            case APUS_FILTER_REFUSED:
                let position = Int32(clamping: min(Int(compiled.error_position), expression.utf8.count))
                return .refused(position: position, reason: Self.text(in: buffer))
            default:
                return .failed(reason: "plugin \(name): \(Self.text(in: buffer))")
            }
        }
    }

    private func program(from compiled: apus_filter_compiled, expression: String) -> Compiled {
        func failed(_ reason: String) -> Compiled {
            release(compiled.program)
            return .failed(reason: "plugin \(name): \(reason)")
        }
        let codes: FilterProgram.TagsCodes
        switch compiled.tags_codes_kind {
        case APUS_FILTER_MATCHES_EVERYTHING: codes = .everything
        case APUS_FILTER_TAGS_CODES_UNUSED: codes = .unused
        case APUS_FILTER_TAGS_CODES_EXACT, APUS_FILTER_TAGS_CODES_PREFILTER:
            let count = Int(compiled.tags_code_count)
            guard count <= Self.maximumTagsCodes else {
                return failed("answered \(count) tags codes; \(Self.maximumTagsCodes) are the most")
            }
            guard count == 0 || compiled.tags_codes != nil else {
                return failed("answered \(count) tags codes and no pointer to them")
            }
            let list = Array(UnsafeBufferPointer(start: compiled.tags_codes, count: count))
            codes = compiled.tags_codes_kind == APUS_FILTER_TAGS_CODES_EXACT ? .exact(list) : .prefilter(Set(list))
        default:
            return failed("answered a tags_codes_kind this host does not know (\(compiled.tags_codes_kind))")
        }
        guard compiled.needs & ~capabilities == 0 else {
            return failed("a program needs more than the plugin's capabilities promise")
        }
        let calls: [FilterProgram.Call]
        switch Self.calls(of: compiled) {
        case .success(let list): calls = list
        case .failure(let problem): return failed(problem.text)
        }
        return .program(
            FilterProgram(
                plugin: self, expression: expression, pointer: compiled.program, tagsCodes: codes,
                needs: compiled.needs, asks: calls))
    }

    private struct Problem: Error {
        let text: String
    }

    private static func calls(of compiled: apus_filter_compiled) -> Result<[FilterProgram.Call], Problem> {
        let count = Int(compiled.call_count)
        guard count <= Int(APUS_FILTER_CALLS_MAX), count == 0 || compiled.calls != nil else {
            return .failure(Problem(text: "answered \(count) calls; \(APUS_FILTER_CALLS_MAX) are the most"))
        }
        var calls: [FilterProgram.Call] = []
        for call in UnsafeBufferPointer(start: compiled.calls, count: count) {
            guard let type = text(call.type, call.type_size),
                let expression = text(call.expression, call.expression_size),
                call.expression_size <= UInt32(FilterPrograms.maximumExpression)
            else { return .failure(Problem(text: "answered a call that is no text")) }
            calls.append(
                .init(
                    type: type, expression: expression, typePosition: Int(call.type_position),
                    expressionPosition: Int(call.expression_position)))
        }
        return .success(calls)
    }

    private static func text(_ start: UnsafePointer<CChar>?, _ size: UInt32) -> String? {
        guard let start else { return nil }
        return String(validating: UnsafeRawBufferPointer(start: start, count: Int(size)), as: UTF8.self)
    }

    /// - Parameter expression: what `program` was made of.
    func match(
        _ program: UnsafeMutableRawPointer?, of expression: String, _ units: UnsafePointer<apus_filter_unit>,
        _ count: Int, _ bitmap: UnsafeMutablePointer<UInt8>
    ) -> Bool {
        let succeeded = guarded(.match) { matchFunction(program, units, UInt32(count), bitmap) } == APUS_FILTER_OK
        self.count(expression, succeeded: succeeded)
        return succeeded
    }

    func release(_ program: UnsafeMutableRawPointer?) {
        guarded(.compile) { releaseFunction(program) }
    }

    private static func withErrorBuffer<R>(_ body: (UnsafeMutableBufferPointer<CChar>) -> R) -> R {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
            buffer.initialize(repeating: 0)
            return body(buffer)
        }
    }

    /// The text a plugin left in a buffer of ours, with or without its final NUL.
    private static func text(in buffer: UnsafeMutableBufferPointer<CChar>) -> String {
        guard let base = buffer.baseAddress else { return "no reason given" }
        let length = strnlen(base, buffer.count)
        let text = String(decoding: UnsafeRawBufferPointer(buffer).prefix(length), as: UTF8.self)
        return text.isEmpty ? "no reason given" : text
    }
}

/// Holds a copy until the process ends, also that of a file that was refused.
private final class KeptImage {
    private let image: FrozenFile

    init(_ image: FrozenFile) { self.image = image }
}

/// A compiled expression. Releases the plugin's program with the last reference.
package final class FilterProgram {
    enum TagsCodes {
        case unused
        case exact([Int64])
        case prefilter(Set<Int64>)
        case everything
    }

    /// The only tags codes a matching message can have; nil: any. Callers of `match` have left out the others.
    package var prefilter: [Int64]? {
        if case .prefilter(let codes) = tagsCodes { codes.sorted() } else { nil }
    }

    /// The plugin that compiled it.
    package let plugin: FilterPlugin
    /// As the consumer wrote it.
    package let expression: String
    let tagsCodes: TagsCodes
    private let pointer: UnsafeMutableRawPointer?
    private var needs: UInt64

    /// A question to another plugin inside the expression.
    struct Call {
        var type: String
        var expression: String
        /// Byte offsets in the whole expression.
        var typePosition: Int
        var expressionPosition: Int
    }

    /// What it asks of other plugins, and what answers, in the same order. Complete before it is evaluated.
    let asks: [Call]
    private(set) var answering: [FilterProgram] = []
    /// The codes an `.exact` or `.prefilter` answer consists of; nil: any.
    private(set) lazy var codeSet: Set<Int64>? =
        switch tagsCodes {
        case .exact(let codes): Set(codes)
        case .prefilter(let codes): codes
        case .unused, .everything: nil
        }
    /// Whose call failed last.
    private(set) var culprit: FilterPlugin?

    func answer(by programs: [FilterProgram]) {
        precondition(programs.count == asks.count, "an answer for each call")
        answering = programs
        for program in programs { needs |= program.needs }
    }

    var needsProperties: Bool { needs & UInt64(APUS_FILTER_NEEDS_PROPERTIES) != 0 }
    var needsBody: Bool { needs & UInt64(APUS_FILTER_NEEDS_BODY) != 0 }
    var needsRecord: Bool { needs != 0 }

    init(
        plugin: FilterPlugin, expression: String, pointer: UnsafeMutableRawPointer?, tagsCodes: TagsCodes,
        needs: UInt64, asks: [Call] = []
    ) {
        self.plugin = plugin
        self.asks = asks
        self.expression = expression
        self.pointer = pointer
        self.tagsCodes = tagsCodes
        self.needs = needs
    }

    deinit { plugin.release(pointer) }

    /// The bits of `count` messages, in the beginning of `bitmap`; nil: a plugin failed, which `culprit` names.
    func evaluate(
        _ units: UnsafeMutablePointer<apus_filter_unit>, _ count: Int, _ bitmap: GuardedBitmap
    ) -> UnsafeMutableBufferPointer<UInt8>? {
        for (number, other) in answering.enumerated() where !other.answer(units, count, bitmap, bit: UInt64(number)) {
            culprit = other.plugin
            return nil
        }
        let bits = bitmap.zeroed((count + 7) / 8)
        guard let start = bits.baseAddress, match(units, count, start) else {
            culprit = plugin
            return nil
        }
        return bits
    }

    /// Writes this program's verdict on each message into one bit of its inputs. False: the plugin failed.
    private func answer(
        _ units: UnsafeMutablePointer<apus_filter_unit>, _ count: Int, _ bitmap: GuardedBitmap, bit: UInt64
    ) -> Bool {
        switch tagsCodes {
        case .everything:
            for index in 0..<count { units[index].inputs |= 1 &<< bit }
            return true
        case .exact:
            for index in 0..<count where codeSet?.contains(units[index].tags_code) == true {
                units[index].inputs |= 1 &<< bit
            }
            return true
        case .unused, .prefilter: break
        }
        let bits = bitmap.zeroed((count + 7) / 8)
        guard let start = bits.baseAddress, match(units, count, start) else { return false }
        for index in 0..<count {
            let isSet = UInt64(truncatingIfNeeded: start[index &>> 3] &>> UInt8(truncatingIfNeeded: index & 7)) & 1
            units[index].inputs |= isSet &<< bit
        }
        if case .prefilter(let codes) = tagsCodes {
            for index in 0..<count where !codes.contains(units[index].tags_code) {
                units[index].inputs &= ~(1 &<< bit)
            }
        }
        return true
    }

    /// One `match_batch`. `bitmap` is zeroed and has `(count + 7) / 8` bytes. False: the plugin failed.
    func match(
        _ units: UnsafePointer<apus_filter_unit>, _ count: Int, _ bitmap: UnsafeMutablePointer<UInt8>
    ) -> Bool {
        plugin.match(pointer, of: expression, units, count, bitmap)
    }
}
