package import LinuxSystem
package import Logging
import StoreFormat
import StoreReader
package import WorkerProtocol

/// Answers the broker-stores' filter messages: compile, batch, release. Confined to one thread.
package final class FilterService {
    /// One broker-store's log as this process sees it.
    private final class Store {
        let directory: String
        let watermarks: SharedSegment
        private let disk: any Disk
        private var view: CommitLogView?
        /// Why the log could not be read since this was last emptied; a file that was deleted is no reason.
        var failure: SystemError?

        init(directory: String, watermarks: SharedSegment, disk: any Disk) {
            self.directory = directory
            self.watermarks = watermarks
            self.disk = disk
        }

        var written: PhysicalOffset {
            PhysicalOffset(Int64(bitPattern: watermarks.atomicLoad(slot: WatermarkSlot.written)))
        }

        /// Nil until the broker-store has opened its store for the first time.
        func log() -> CommitLogView? {
            if let view { return view }
            let fileSize = watermarks.atomicLoad(slot: WatermarkSlot.fileSize)
            guard watermarks.atomicLoad(slot: WatermarkSlot.ready) == 1, fileSize > 0, fileSize <= Int64.max else {
                return nil
            }
            let view = CommitLogView(
                directory: directory, fileSize: Int(fileSize), disk: disk, maximumWindows: FilterService.windows)
            view.readFailed = { [unowned self] in failure = $0 }
            self.view = view
            return view
        }

        func releaseWindows() { view?.release() }
    }

    /// Windows of 4 MiB over one log. Batches of several queues go over the same part of it in turn, and the more
    /// queues there are the longer that part is. With 96 queues of 470-byte records a batch spans 180 MB. Windows
    /// mapped anew for each cost three times what the rest does. What is not used goes after a second or two.
    private static let windows = 128

    private let catalogue: FilterCatalogue
    private let programs: FilterPrograms
    private let evaluator: FilterEvaluator
    private let disk: any Disk
    private let logger: Logger
    private var stores: [Int: Store] = [:]
    private var batches: UInt64 = 0
    private var records: UInt64 = 0

    package init(catalogue: FilterCatalogue, disk: any Disk, logger: Logger) {
        self.catalogue = catalogue
        self.disk = disk
        self.logger = logger
        programs = FilterPrograms(catalogue: catalogue)
        evaluator = FilterEvaluator(logger: logger)
    }

    /// - Parameters:
    ///   - index: the broker-store's number.
    ///   - directory: its commit log's folder.
    package func addStore(index: Int, directory: String, watermarks: SharedSegment) {
        stores[index] = Store(directory: directory, watermarks: watermarks, disk: disk)
    }

    /// The broker-store was restarted: what its former process used is released.
    package func storeReplaced(index: Int) {
        for (program, uses) in usesByStore.removeValue(forKey: index) ?? [:] {
            for _ in 0..<uses { programs.release(program) }
        }
    }

    /// Uses of programs each broker-store holds, so that a broker-store that dies leaves none behind.
    private var usesByStore: [Int: [UInt32: Int]] = [:]

    /// The answer to a message of broker-store `store`, or nil when there is none to give.
    package func answer(_ message: WorkerMessage, store: Int) -> WorkerMessage? {
        switch message {
        case .filterCompile(let request, let type, let expression):
            let result = programs.compile(type: type, expression: expression)
            if case .program(let id, _) = result { usesByStore[store, default: [:]][id, default: 0] += 1 }
            return .filterCompiled(request: request, result: result.compilation)
        case .filterRelease(let program):
            guard let uses = usesByStore[store]?[program], uses > 0 else { return nil }
            usesByStore[store]?[program] = uses == 1 ? nil : uses - 1
            programs.release(program)
            return nil
        case .filterBatch(let request, let program, let entries):
            return evaluate(request, program, entries, store: store)
        default:
            logger.error("a broker-store sent a message that is not for the filter worker: it is dropped")
            return nil
        }
    }

    private func evaluate(_ request: UInt64, _ id: UInt32, _ entries: [UInt8], store: Int) -> WorkerMessage {
        func failed(_ reason: String, unknownProgram: Bool = false) -> WorkerMessage {
            .filterFailed(request: request, unknownProgram: unknownProgram, reason: reason)
        }
        guard let program = programs.program(id) else {
            return failed("program \(id) is not known to this filter worker", unknownProgram: true)
        }
        guard let store = stores[store], let log = store.log() else {
            return failed("the store of broker-store \(store) is not open yet")
        }
        batches &+= 1
        records &+= UInt64(entries.count / ConsumeQueueEntry.size)
        store.failure = nil
        let outcome = entries.withUnsafeBytes { evaluator.match(program, $0, in: log, written: store.written) }
        // What cannot be read does not count as deleted: nothing may be skipped for it.
        if let failure = store.failure { return failed("the log cannot be read: \(failure)") }
        switch outcome {
        case .bitmap(let bitmap):
            return .filterMatched(request: request, bitmap: bitmap)
        case .failed(let reason):
            noteFailure(reason)
            return failed(reason)
        }
    }

    private var failuresLogged: (last: UInt64, unsaid: Int) = (0, 0)

    /// A plugin that fails each call would fill the journal: one line every ten seconds, with the count.
    private func noteFailure(_ reason: String) {
        let now = CallGuard.now()
        guard failuresLogged.last == 0 || now - failuresLogged.last > 10_000_000_000 else {
            failuresLogged.unsaid += 1
            return
        }
        let more = failuresLogged.unsaid == 0 ? "" : " (and \(failuresLogged.unsaid) more since the last such line)"
        failuresLogged = (now, 0)
        logger.error("a filter batch was not evaluated, nothing of it is delivered or skipped: \(reason)\(more)")
    }

    /// Gives back mapped windows of the log that are not used any more: to be called a second or so after work.
    package func releaseWindows() {
        for store in stores.values { store.releaseWindows() }
    }

    /// For people: what is loaded and how much was done.
    package var status: String {
        let loaded = catalogue.plugins.map { "\($0.type) by \($0.name)" }.joined(separator: ", ")
        let refused = catalogue.refusals.isEmpty ? "" : ", \(counted(catalogue.refusals.count, "plugin file")) refused"
        return "\(loaded.isEmpty ? "no plugins" : loaded)\(refused), \(counted(programs.count, "program")), "
            + "\(counted(batches, "batch", plural: "batches")) of \(counted(records, "record"))"
    }

    /// The plugins that are out of use or fail each call, with the reason, for people; empty when all of them answer.
    package var trouble: String {
        catalogue.plugins.compactMap { $0.unavailability ?? $0.failing }.joined(separator: "; ")
    }

    /// The expressions in use, with how many broker-stores hold each.
    package var expressions: [(type: String, expression: String, plugins: [String], uses: Int)] { programs.inUse }
}

extension FilterPrograms.Answer {
    var compilation: FilterCompilation {
        switch self {
        case .everything: .everything
        case .tagsCodes(let codes): .tagsCodes(codes)
        case .program(let id, let prefilter): .program(id, prefilter: prefilter)
        case .refused(let position, let reason): .refused(position: position, reason: reason)
        case .unavailable(let reason): .unavailable(reason: reason)
        case .elsewhere(let types, let reason): .elsewhere(types: types, reason: reason)
        }
    }
}
