import Foundation
import LinuxSystem
import Logging
import MessageModel
import NIOCore
import NIOPosix
import RemotingTransport
import TestFolders
import TestTools
import Testing
import WorkerKit
import WorkerProtocol

@testable import Replication

/// A broker-store as replication sees it: commit log files, watermarks, an event.
final class FakeStore: @unchecked Sendable {
    let folder: URL
    let fileSize: Int64
    let watermarks: SharedSegment
    let event: Descriptor
    private let lock = NSLock()
    private var end: Int64

    init(fileSize: Int64 = 64 * 1024, startingAt start: Int64 = 0) throws {
        folder = try TestFolder.make("replication")
        self.fileSize = fileSize
        end = start
        watermarks = try SharedSegment.create(name: "watermarks", bytes: WatermarkSlot.count * 8)
        event = try EventFD.create()
        watermarks.atomicStore(slot: WatermarkSlot.fileSize, UInt64(fileSize))
        watermarks.atomicStore(slot: WatermarkSlot.minimum, UInt64(start - start % fileSize))
        publish()
        watermarks.atomicStore(slot: WatermarkSlot.ready, 1)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    var written: Int64 { lock.withLock { end } }

    func path(_ offset: Int64) -> String {
        let name = String(offset - offset % fileSize)
        return folder.appendingPathComponent(String(repeating: "0", count: 20 - name.count) + name).path
    }

    /// Appends over file ends, as a log does.
    func append(_ bytes: [UInt8], at offset: Int64? = nil) {
        lock.withLock {
            if let offset { end = offset }
            var rest = bytes[...]
            while !rest.isEmpty {
                let room = Int(fileSize - end % fileSize)
                let part = Array(rest.prefix(room))
                let fd = open(path(end), O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
                precondition(fd >= 0, "the test cannot open \(path(end))")
                precondition(ftruncate(fd, off_t(fileSize)) == 0)
                precondition(pwrite(fd, part, part.count, off_t(end % fileSize)) == part.count)
                Glibc.close(fd)
                rest = rest.dropFirst(part.count)
                end += Int64(part.count)
            }
        }
        publish()
    }

    /// A broker-store process ends, and the next one begins.
    func close() {
        watermarks.atomicStore(slot: WatermarkSlot.ready, 0)
        let generation = watermarks.atomicLoad(slot: WatermarkSlot.generation)
        watermarks.atomicStore(slot: WatermarkSlot.generation, generation + 1)
        EventFD.signal(event.raw)
    }

    /// It has opened its store.
    func reopen(at end: Int64) {
        lock.withLock { self.end = end }
        watermarks.atomicStore(slot: WatermarkSlot.written, UInt64(end))
        watermarks.atomicStore(slot: WatermarkSlot.ready, 1)
        EventFD.signal(event.raw)
    }

    private func publish() {
        watermarks.atomicStore(slot: WatermarkSlot.written, UInt64(written))
        EventFD.signal(event.raw)
    }

    /// The log from `start` to its end.
    func contents(from start: Int64 = 0) throws -> [UInt8] {
        var result: [UInt8] = []
        var at = start - start % fileSize
        while at < written {
            result += try Data(contentsOf: URL(fileURLWithPath: path(at)))
            at += fileSize
        }
        return Array(result.dropFirst(Int(start % fileSize)).prefix(Int(written - start)))
    }
}

/// The master side of the protocol over a fake store, on a free port of the loopback.
final class MasterHarness {
    let store: FakeStore
    let segment: SharedSegment
    let event: Descriptor
    let book = LogBook()
    let port: Int
    private let loop: any EventLoop
    private let master: NIOLoopBound<ReplicationMaster>
    private let watch: EventWatch

    init(store: FakeStore, times: HATimes = HATimes(), batchSize: Int = 32 * 1024, port: Int = 0) async throws {
        self.store = store
        loop = MultiThreadedEventLoopGroup.singleton.next()
        segment = try SharedSegment.create(name: "replication", bytes: ReplicationSlot.count * 8)
        event = try EventFD.create()
        let loop = loop
        let book = book
        let segment = segment
        let eventRaw = event.raw
        let master = try await loop.submit {
            NIOLoopBound(
                ReplicationMaster(
                    eventLoop: loop,
                    log: MasterLog(directory: store.folder.path, disk: RealDisk(), watermarks: store.watermarks),
                    times: times, batchSize: batchSize, publisher: AckPublisher(segment: segment, event: eventRaw),
                    logger: book.logger), eventLoop: loop)
        }.get()
        self.master = master
        let (listener, bound) = try await Self.listen(port)
        self.port = bound
        _ = try await loop.flatSubmit { master.value.start(listener: listener) }.get()
        let storeEvent = store.event.raw
        watch = try await loop.flatSubmit {
            EventWatch.start(storeEvent, on: loop) { master.value.logMoved() }
        }.get()
    }

    /// `port` 0: a free one below those that outgoing connections get, so that it is still free when a master comes
    /// back.
    /// Another: once it is free. A process that another test starts just then has the socket of before until it becomes
    /// its program.
    static func listen(_ port: Int) async throws -> (descriptor: Int32, port: Int) {
        if port != 0 {
            var found: (descriptor: Int32, port: Int)?
            try await eventually("port \(port) is free") {
                found = try? bound(port)
                return found != nil
            }
            guard let found else { throw NoPort() }
            return found
        }
        for _ in 0..<50 {
            if let found = try? bound(Int.random(in: 15_000..<32_000)) { return found }
        }
        return try bound(0)
    }

    struct NoPort: Error {}

    private static func bound(_ port: Int) throws -> (descriptor: Int32, port: Int) {
        let kind = SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue
        let fd = socket(AF_INET, Int32(kind), 0)
        var on: Int32 = 1
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, 4)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        address.sin_port = UInt16(port).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(fd, pointer, size) == 0 && Glibc.listen(fd, 64) == 0 && getsockname(fd, pointer, &size) == 0
            }
        }
        guard bound else {
            close(fd)
            throw NoPort()
        }
        return (fd, Int(UInt16(bigEndian: address.sin_port)))
    }

    var acknowledged: Int64 { Int64(segment.atomicLoad(slot: ReplicationSlot.slaveAckOffset)) }
    var slaves: Int { Int(segment.atomicLoad(slot: ReplicationSlot.connectedSlaves)) }

    /// Connections, whether they have reported or not.
    var connections: Int {
        get async throws {
            let master = master
            return try await loop.submit { master.value.slaveCount }.get()
        }
    }

    /// When a slave last reported, in milliseconds since 1970.
    var lastReport: Int64 { Int64(segment.atomicLoad(slot: ReplicationSlot.lastAckMilliseconds)) }

    /// Why connections from an address are refused, nil for each that is taken.
    func admit(_ count: Int, from address: HostAddress) async throws -> [String?] {
        let master = master
        return try await loop.submit { (0..<count).map { _ in master.value.admission.admit(address) } }.get()
    }

    /// All that was due on the master's event loop has been done.
    func turn() async throws { try await loop.submit {}.get() }

    /// As if the process ended.
    func stop() async throws {
        watch.stop()
        let master = master
        try await loop.flatSubmit { master.value.stop() }.get()
    }
}

/// The slave side with a fake broker-store behind it.
final class SlaveHarness {
    let store: FakeStore
    let book = LogBook()
    let backend: FakeBrokerStore
    private let loop: any EventLoop
    private let slave: NIOLoopBound<ReplicationSlave>

    init(store: FakeStore, times: HATimes = HATimes()) async throws {
        self.store = store
        loop = MultiThreadedEventLoopGroup.singleton.next()
        let loop = loop
        let book = book
        slave = try await loop.submit {
            NIOLoopBound(ReplicationSlave(eventLoop: loop, times: times, logger: book.logger), eventLoop: loop)
        }.get()
        backend = FakeBrokerStore(store: store, loop: loop, slave: slave)
    }

    func find(port: Int) async throws {
        let slave = slave
        try await loop.submit { slave.value.masterFound(host: "127.0.0.1", port: port) }.get()
    }

    /// A new broker-store process with the same files; what the former one had not appended is lost.
    func restartStore() async throws {
        let (slave, backend) = (slave, backend)
        try await loop.submit {
            slave.value.storeDisconnected()
            backend.restart()
            slave.value.storeConnected(backend)
            slave.value.storePosition(backend.store.written)
        }.get()
    }

    func stop() async throws {
        let slave = slave
        try await loop.submit { slave.value.stop() }.get()
    }

    var isConnected: Bool {
        get async throws {
            let slave = slave
            return try await loop.submit { slave.value.isConnected }.get()
        }
    }
}

/// The slave's broker-store behind the link: appends at exactly the offset or refuses. Lives on the slave's loop.
final class FakeBrokerStore: StoreLink, @unchecked Sendable {
    let store: FakeStore
    private let loop: any EventLoop
    private let slave: NIOLoopBound<ReplicationSlave>
    private var generation = 0
    private(set) var largestChunk = 0
    /// Milliseconds an append takes.
    var delay = 0
    var waiting = 0
    private(set) var mostWaiting = 0
    var refuse: String?
    private(set) var messages: [WorkerMessage] = []

    init(store: FakeStore, loop: any EventLoop, slave: NIOLoopBound<ReplicationSlave>) {
        self.store = store
        self.loop = loop
        self.slave = slave
    }

    var isWritable: Bool { true }

    func restart() {
        generation += 1
        waiting = 0
    }

    func send(_ message: WorkerMessage) {
        guard case .replicaBytes(let at, let bytes) = message else {
            messages.append(message)
            return
        }
        largestChunk = max(largestChunk, bytes.count)
        waiting += bytes.count
        mostWaiting = max(mostWaiting, waiting)
        let generation = generation
        loop.scheduleTask(in: .milliseconds(Int64(delay))) { [self] in
            guard generation == self.generation else { return }
            waiting -= bytes.count
            if let reason = refuse { return slave.value.storeRefused(at: at, reason: reason) }
            guard at == store.written || store.written == 0 else {
                return slave.value.storeRefused(at: at, reason: "the log ends at \(store.written)")
            }
            store.append(bytes, at: at)
            slave.value.storePosition(store.written)
        }
    }
}
