import Foundation
import ModelClients

/// A small seeded generator (SplitMix64).
struct ModelRandom: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
    /// True once in so many times.
    mutating func once(in count: Int) -> Bool { below(count) == 0 }
    mutating func pick<Element>(_ elements: [Element]) -> Element? { elements.randomElement(using: &self) }
    /// A number for these words, the same in every run of the same seed.
    static func number(_ seed: UInt64, _ words: String) -> UInt64 {
        var random = ModelRandom(words.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
        return random.next()
    }
}

/// Who consumes what in a model run, with which settings of the platform.
struct ModelPlan: Sendable {
    struct Group: Sendable {
        var name: String
        var mode: ModelConsumer.Mode
        var topics: [String]
        /// A message is tried once and then so many times again.
        var maxRetries: Int32
        /// The limit comes with each 36, not from the group's configuration.
        var bringsLimit = false
        var members: Int
    }

    static let mixed = "ModelMixed"
    static let ordered = "ModelOrdered"
    static let queues: Int32 = 4
    static let keys = 12
    static let topics = [mixed, ordered]

    static let groups = [
        Group(name: "ModelC1", mode: .concurrent, topics: [mixed, ordered], maxRetries: 2, members: 3),
        Group(name: "ModelC2", mode: .concurrent, topics: [mixed], maxRetries: 3, bringsLimit: true, members: 2),
        Group(name: "ModelO1", mode: .orderly, topics: [ordered], maxRetries: 16, members: 3),
        Group(name: "ModelO2", mode: .orderly, topics: [ordered, mixed], maxRetries: 16, members: 2),
        Group(name: "ModelB1", mode: .broadcast, topics: [mixed], maxRetries: 0, members: 2),
    ]

    /// Level 1 is 1 s, level 2 is 2 s; retries, from level 3 on, come after a second.
    static let levelMilliseconds: [Int64] = [1000, 2000]
    static let retryMilliseconds: Int64 = 1000
    static let lockLifeMilliseconds = 4000

    static let settings: [String] = [
        "messageDelayLevel=1s 2s 1s 1s 1s 1s 1s 1s", "transactionTimeOut=800", "transactionCheckInterval=700",
        "transactionCheckMax=60", "rebalanceLockMaxLiveTime=\(lockLifeMilliseconds)",
        // Small files, so that they roll over.
        "mappedFileSizeCommitLog=8388608", "mappedFileSizeConsumeQueue=40000",
    ].flatMap { ["--set", $0] }

    static func group(_ name: String) -> Group? { groups.first { $0.name == name } }

    /// How often a group fails with a message before it succeeds; more often than it may: the message is a dead letter.
    static func failures(_ seed: UInt64, group: Group, id: Int) -> Int32 {
        let number = ModelRandom.number(seed, "\(group.name) \(id)") % 1000
        switch group.mode {
        case .broadcast: return 0
        case .orderly: return number < 30 ? 1 : number < 40 ? 2 : 0
        case .concurrent:
            if number < 20 { return Int32.max }
            return number < 80 ? 1 : number < 110 ? 2 : 0
        }
    }
}
