import Glibc
import LinuxSystem

/// Where the store does what may block. Work of one thread runs in order. Tests run the work when they choose.
package protocol StoreBackground: AnyObject, Sendable {
    /// Does `work` on that thread, after what was submitted to it before.
    func submit(_ thread: StoreBackgroundThread, _ work: @escaping @Sendable () -> Void)
    /// Finishes what was submitted, then ends. Blocks.
    func stop()
}

/// The store's threads, by the kind of work they do.
package enum StoreBackgroundThread: Sendable {
    /// Synchronizing log and queues.
    case flush
    /// Making the next log file, reserving blocks.
    case prepare
    /// What is written behind the log: new queue files, the index, record checksums, folders of removed topics.
    case writeBehind
    /// The background check, and deleting: at low priority.
    case check
}

/// The real threads.
package final class StoreThreads: StoreBackground {
    private let flush = SerialThread(name: "apus-flush")
    private let prepare = SerialThread(name: "apus-prepare")
    private let writeBehind = SerialThread(name: "apus-behind")
    private let check = SerialThread(name: "apus-check", niceness: 10)

    /// A thread starts with its first work.
    package init() {}

    /// Any thread may call it, until `stop`.
    package func submit(_ thread: StoreBackgroundThread, _ work: @escaping @Sendable () -> Void) {
        switch thread {
        case .flush: flush.submit(work)
        case .prepare: prepare.submit(work)
        case .writeBehind: writeBehind.submit(work)
        case .check: check.submit(work)
        }
    }

    /// Blocks until all work is done.
    package func stop() {
        flush.stop()
        prepare.stop()
        writeBehind.stop()
        check.stop()
    }
}

/// One thread and its queue of work. All state below is guarded by `monitor`.
private final class SerialThread: @unchecked Sendable {
    private let monitor = Monitor()
    private let name: String
    private let niceness: Int32
    private var queue: [@Sendable () -> Void] = []
    private var stopping = false
    private var thread: pthread_t?

    /// - Parameter niceness: the thread's nice value, 0...19.
    init(name: String, niceness: Int32 = 0) {
        self.name = name
        self.niceness = niceness
    }

    func submit(_ work: @escaping @Sendable () -> Void) {
        monitor.lock()
        precondition(!stopping, "work submitted to the stopped thread \(name)")
        queue.append(work)
        if thread == nil { start() }
        monitor.wakeOne()
        monitor.unlock()
    }

    func stop() {
        monitor.lock()
        stopping = true
        let running = thread
        thread = nil
        monitor.wakeOne()
        monitor.unlock()
        if let running { pthread_join(running, nil) }
    }

    private func start() {
        var created = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        let result = pthread_create(
            &created, nil,
            { context in
                if let context { Unmanaged<SerialThread>.fromOpaque(context).takeRetainedValue().run() }
                return nil
            }, context)
        precondition(
            result == 0, "pthread_create for \(name) failed with errno \(result): raise TasksMax= or ulimit -u")
        thread = created
    }

    private func run() {
        setCurrentThreadName(name)
        // On Linux this is the calling thread's alone.
        if niceness > 0 { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, niceness) }
        while true {
            monitor.lock()
            while queue.isEmpty && !stopping { monitor.wait() }
            let batch = queue
            queue.removeAll(keepingCapacity: true)
            monitor.unlock()
            if batch.isEmpty { return }
            for work in batch { work() }
        }
    }
}
