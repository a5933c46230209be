import Foundation
import LinuxSystem
import Testing

@Suite("descriptors held back for files") struct DescriptorReserveTests {
    @Test("what is lent is free, and taken back when there is room")
    func lends() {
        let reserve = DescriptorReserve()
        #expect(!reserve.lend())
        reserve.hold(8)
        #expect(reserve.count == (8, 8))
        for _ in 0..<3 { #expect(reserve.lend()) }
        #expect(reserve.count == (5, 8))
        #expect(reserve.refill())
        #expect(reserve.count == (8, 8))
        reserve.hold(2)
        #expect(reserve.count == (2, 2))
    }

    @Test(
        "connections get what files leave, and never all",
        arguments: [
            // (limit, in use, growth, wanted) and (reserve, connections)
            ((1 << 20, 60, 320, 10_000), (256, 10_000)), ((1024, 60, 320, 10_000), (64, 580)),
            ((96, 40, 320, 10_000), (14, 21)), ((64, 64, 320, 10_000), (0, 1)), ((1024, 60, 16, 100), (64, 100)),
        ] as [((Int, Int, Int, Int), (Int, Int))])
    func plan(_ given: (Int, Int, Int, Int), _ expected: (Int, Int)) {
        let plan = DescriptorPlan(limit: given.0, inUse: given.1, growth: given.2, wanted: given.3)
        #expect((plan.reserve, plan.connections) == expected)
    }

    /// In a process of its own: the limit is the whole process's, and other tests run at the same time.
    @Test("a file is opened although connections have taken every free descriptor")
    func fileInNeed() async {
        await #expect(processExitsWith: .success) {
            for held in [0, 4] { #expect(Self.openInNeed(held: held) == (held > 0), "\(held) held") }
        }
    }

    @Test("a message whose descriptors find no free ones waits for them, or comes without")
    func messageInNeed() async {
        await #expect(processExitsWith: .success) {
            for held in 0...3 { #expect(Self.receiveInNeed(held: held) == (held < 3 ? 0 : 3), "\(held) held") }
        }
    }

    /// How many of three descriptors come; the message and the next one do in any case.
    private static func receiveInNeed(held: Int) -> Int? {
        guard let (a, b) = try? SocketPair.create(sequencedPackets: true).ends() else { return nil }
        DescriptorReserve.shared.hold(held)
        defer { DescriptorReserve.shared.hold(0) }
        return withTightLimit {
            func receive() throws -> (text: String, descriptors: [Int32])? {
                var room = [UInt8](repeating: 0, count: 100)
                let message = try room.withUnsafeMutableBytes {
                    try DescriptorPassing.receive(
                        into: $0, from: b.raw, wait: false, makeRoom: { DescriptorReserve.shared.lend() })
                }
                return message.map { (String(decoding: room[..<$0.count], as: UTF8.self), $0.descriptors) }
            }
            for (text, descriptors) in [("first", [a.raw, a.raw, a.raw]), ("second", [])] {
                try? Array(text.utf8).withUnsafeBytes {
                    try DescriptorPassing.send($0, descriptors: descriptors, to: a.raw, wait: true)
                }
            }
            guard let first = try? receive(), let second = try? receive(), first.text == "first",
                second.text == "second", second.descriptors.isEmpty
            else { return nil }
            for descriptor in first.descriptors { close(descriptor) }
            return first.descriptors.count
        }
    }

    /// While no descriptor is free.
    private static func withTightLimit<Result>(_ body: () -> Result) -> Result {
        var before = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        getrlimit(resource, &before)
        let next = fcntl(0, F_DUPFD_CLOEXEC, 0)
        close(next)
        var tight = before
        tight.rlim_cur = rlim_t(next)
        setrlimit(resource, &tight)
        defer { setrlimit(resource, &before) }
        return body()
    }

    private static func openInNeed(held: Int) -> Bool {
        let path = "/tmp/apus-descriptors-\(getpid())-\(held)"
        defer { unlink(path) }
        DescriptorReserve.shared.hold(held)
        defer { DescriptorReserve.shared.hold(0) }
        return withTightLimit { (try? RealDisk().open(path, .create)) != nil }
    }
}
