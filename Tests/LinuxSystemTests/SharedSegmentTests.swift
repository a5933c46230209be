import Foundation
import LinuxSystem
import Testing

@Suite struct SharedSegmentTests {
    @Test func segmentIsSharedSealedAndReadOnlyForReaders() throws {
        let descriptor = try SharedSegment.createDescriptor(name: "test", bytes: 4096)
        let readOnly = try SharedSegment.readOnly(descriptor.raw)
        let writer = try SharedSegment(adopting: descriptor.release())
        let reader = try SharedSegment(adopting: readOnly.release())
        #expect(writer.writable && !reader.writable && writer.slots == 512)
        writer.atomicStore(slot: 511, .max)
        #expect(reader.atomicLoad(slot: 511) == .max)
        #expect(reader.atomicLoad(slot: 0) == 0)
        // No process can take the memory away under a reader, or map the reader's descriptor for writing.
        #expect(ftruncate(writer.fd, 0) == -1)
        #expect(mmap(nil, 4096, PROT_WRITE, MAP_SHARED, reader.fd, 0) == MAP_FAILED)
    }

    @Test func eventCounts() throws {
        let event = try EventFD.create()
        #expect(EventFD.take(event.raw) == 0)
        EventFD.signal(event.raw)
        EventFD.signal(event.raw)
        #expect(EventFD.take(event.raw) == 2)
        #expect(EventFD.take(event.raw) == 0)
    }

    @Test func descriptorsTravel() throws {
        let (a, b) = try SocketPair.create(sequencedPackets: true).ends()
        let event = try EventFD.create()
        try Array("hello".utf8).withUnsafeBytes {
            try DescriptorPassing.send($0, descriptors: [event.raw, event.raw], to: a.raw, wait: true)
        }
        var room = [UInt8](repeating: 0, count: 100)
        let received = try room.withUnsafeMutableBytes {
            try DescriptorPassing.receive(into: $0, from: b.raw, wait: true)
        }
        let message = try #require(received)
        #expect(String(decoding: room[..<message.count], as: UTF8.self) == "hello")
        #expect(message.descriptors.count == 2)
        EventFD.signal(message.descriptors[0])
        #expect(EventFD.take(event.raw) == 1)
        for fd in message.descriptors {
            #expect(fcntl(fd, F_GETFD) & FD_CLOEXEC != 0)
            close(fd)
        }
    }

    @Test func messagesThatDoNotFitAreRefused() throws {
        let (a, b) = try SocketPair.create(sequencedPackets: true).ends()
        try [UInt8](repeating: 1, count: 100).withUnsafeBytes { try DescriptorPassing.send($0, to: a.raw, wait: true) }
        var room = [UInt8](repeating: 0, count: 10)
        #expect {
            try room.withUnsafeMutableBytes { _ = try DescriptorPassing.receive(into: $0, from: b.raw, wait: true) }
        } throws: { ($0 as? SystemError)?.errno == EMSGSIZE }
    }

    @Test func endOfTheOtherSideIsNil() throws {
        let pair = try SocketPair.create(sequencedPackets: true)
        let (first, second) = pair.ends()
        shutdown(second.raw, Int32(SHUT_RDWR))
        var room = [UInt8](repeating: 0, count: 10)
        let received = try room.withUnsafeMutableBytes {
            try DescriptorPassing.receive(into: $0, from: first.raw, wait: true)
        }
        #expect(received == nil)
    }
}
