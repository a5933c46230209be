import MessageModel
import Testing

@Suite struct BytesHashTests {
    private func hash(_ hashing: BytesHash, _ text: String, _ number: UInt64 = 0) -> UInt64 {
        Array(text.utf8).withUnsafeBytes { hashing.hash($0, and: number) }
    }

    @Test func theSameBytesHaveTheSameHash() {
        let hashing = BytesHash()
        for text in ["", "a", "TopicTest", "a topic of more than two times eight bytes"] {
            #expect(hash(hashing, text) == hash(hashing, text) && hash(hashing, text, 3) == hash(hashing, text, 3))
        }
        var all: Set<UInt64> = []
        for topic in 0..<1000 { for queue in 0..<4 { all.insert(hash(hashing, "Topic\(topic)", UInt64(queue))) } }
        #expect(all.count == 4000)
    }

    /// What collides for one seed does not for another: clients cannot choose topics that all lie in one slot.
    @Test func eachHasASeedOfItsOwn() {
        let slots = { (hashing: BytesHash) in (0..<64).map { hash(hashing, "T\($0)") & 63 } }
        #expect(Set((0..<8).map { _ in slots(BytesHash()) }).count == 8)
    }
}
