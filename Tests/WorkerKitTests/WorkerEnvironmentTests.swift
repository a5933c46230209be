import Foundation
import LinuxSystem
import Logging
import NIOCore
import NIOPosix
import Testing
import WorkerKit
import WorkerProtocol

@Suite struct WorkerEnvironmentTests {
    private func environment(_ descriptors: [(name: String, fd: Int32)]) throws -> WorkerEnvironment {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        return try WorkerEnvironment(
            kind: .filter, index: 0, settings: Settings(), group: MultiThreadedEventLoopGroup.singleton,
            eventLoop: loop,
            logger: Logger(label: "test"), descriptors: descriptors)
    }

    @Test func namesFindTheirDescriptors() throws {
        let listener = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let event = try EventFD.create().release()
        defer { close(event) }
        let environment = try environment([
            ("listener:remoting", listener.raw), ("event:watermarks", event),
            ("segment:watermarks", SharedSegment.createDescriptor(name: "a", bytes: 8).release()),
            ("segment:watermarks@broker-store-1", SharedSegment.createDescriptor(name: "b", bytes: 16).release()),
        ])
        #expect(try environment.listener("remoting") == listener.raw)
        // Given away: a second time there is none.
        #expect(throws: WorkerError.self) { try environment.listener("remoting") }
        #expect(try environment.event("watermarks") == event)
        #expect(try environment.segment("watermarks").slots == 1)
        #expect(try environment.segment("watermarks", of: WorkerID(.brokerStore, 1)).slots == 2)
        #expect(environment.segments("watermarks", of: .brokerStore).map(\.index) == [1])
        #expect(throws: WorkerError.self) { try environment.segment("replication") }
        #expect(throws: WorkerError.self) { try environment.segment("watermarks", of: WorkerID(.replication, 1)) }
    }

    @Test func unknownDescriptorNamesAreRefused() {
        #expect(throws: WorkerError.self) { try environment([("socket:x", 0)]) }
    }
}
