import MessageStore
import StoreFormat
import TestDisk
import Testing

/// `findMessage` runs in one turn of the loop: strangers choose the keys whose chains it walks.
@Suite struct FindMessageTests {
    private func found(_ harness: Harness, _ key: String, atMost: Int = 100_000, isIt: Bool = true) -> (
        MessageSearch, looked: Int
    ) {
        var looked = 0
        let search = harness.store.findMessage(topic: "T", key: key, atMost: atMost) { _ in
            looked += 1
            return isIt
        }
        return (search, looked)
    }

    @Test("a chain of other keys is followed no further than so many entries")
    func longChain() throws {
        var configuration = StoreConfiguration.small("/store")
        configuration.maxHashSlotNum = 1
        configuration.maxIndexNum = 20_000
        let harness = Harness(configuration, disk: SimulatedDisk())
        try harness.store.open()
        harness.send("T", body: "old", keys: "wanted")
        try harness.store.commitTick()
        #expect(found(harness, "wanted") == (.found, 1))
        #expect(found(harness, "missing") == (.none, 0))
        let keys = Array(repeating: "x", count: 100).joined(separator: " ")
        for _ in 0..<(MessageStore.findSteps / 100) { harness.send("T", body: "new", keys: keys) }
        try harness.store.commitTick()
        #expect(found(harness, "wanted") == (.found, 1))
        harness.send("T", body: "new", keys: keys)
        try harness.store.commitTick()
        #expect(found(harness, "wanted") == (.unknown, 0))
        #expect(found(harness, "missing") == (.unknown, 0))
        // A repeated key is looked at once, and what is found before the bound is found.
        #expect(found(harness, "x", isIt: false).looked == MessageStore.findSteps / 100 + 1)
        harness.send("T", body: "newest", keys: "wanted")
        try harness.store.commitTick()
        #expect(found(harness, "wanted") == (.found, 1))
        try harness.store.close()
    }

    @Test("no more than so many bytes of messages are looked at")
    func bigMessages() throws {
        let folder = try TemporaryFolder()
        var configuration = StoreConfiguration.small(folder.path)
        configuration.mappedFileSizeCommitLog = 16 << 20
        configuration.maxMessageSize = 2 << 20
        let harness = Harness(configuration)
        try harness.store.open()
        let body = String(repeating: "b", count: 1 << 20)
        for _ in 0..<8 { harness.send("T", body: body, keys: "k") }
        try harness.store.commitTick()
        let (search, looked) = found(harness, "k", isIt: false)
        #expect(search == .unknown && looked == MessageStore.findBytes >> 20)
        #expect(found(harness, "k") == (.found, 1))
        try harness.store.close()
    }
}
