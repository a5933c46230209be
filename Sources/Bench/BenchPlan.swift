/// What one run of the generator does.
package struct BenchPlan: Sendable {
    /// What the connections do.
    package enum Mode: String, Sendable, CaseIterable {
        case produce
        case consume
        case both
    }

    /// `HOST:PORT` of one name server.
    package var nameServer = "127.0.0.1:9876"
    /// Made by a producing run that does not find it.
    package var topic = "BenchTopic"
    /// Queues a topic gets when the run has to create it.
    package var queues = 8
    /// Whether it produces, consumes, or both at once.
    package var mode = Mode.produce
    /// Body sizes in bytes, used in turn.
    package var sizes = [128]
    /// Each on its own, not through a client library.
    package var produceConnections = 16
    /// Connections the queues are spread over when consuming.
    package var consumeConnections = 4
    /// Requests each producing connection keeps unanswered.
    package var inFlight = 1
    /// Messages in one request; above 1 they travel as SEND_BATCH_MESSAGE.
    package var batch = 1
    /// Messages per second of all connections together; nil sends as fast as answers come (closed loop).
    package var rate: Double?
    /// Before the measured window, 0 to 3600; a run that only consumes has none.
    package var warmUpSeconds = 1.0
    /// The measured window, above 0 and at most 86 400.
    package var seconds = 10.0
    /// Ends the run after so many messages of the measured window.
    package var count: Int?
    /// How the headers of sends and pulls are written.
    package var form = HeaderForm.json
    /// `TAGS` of each message; nil: none.
    package var tag: String?
    /// Subscription of the consuming side.
    package var filter = "*"
    /// The consumer group of the pulls, which commit no offset.
    package var group = "BENCH_GROUP"
    /// Messages asked for in one pull.
    package var pullSize = 32
    /// Consume what is stored already; otherwise only what arrives.
    package var fromFirst = false
    /// Processes whose CPU time is charged to the messages: pids, executable names or Java main classes.
    package var cpuOf: [String] = []

    package init() {}

    var produces: Bool { mode != .consume }
    var consumes: Bool { mode != .produce }

    /// The bounds the engine relies on.
    /// - Throws: the first bound that does not hold, with its option.
    package func check() throws(BenchError) {
        func require(_ condition: Bool, _ text: String) throws(BenchError) {
            if !condition { throw BenchError(text) }
        }
        try require(!sizes.isEmpty && sizes.allSatisfy { 1...(16 << 20) ~= $0 }, "--size must be 1 to 16777216 bytes")
        try require(1...10_000 ~= produceConnections, "--connections must be 1 to 10000")
        try require(1...10_000 ~= consumeConnections, "--consume-connections must be 1 to 10000")
        try require(1...4096 ~= inFlight, "--in-flight must be 1 to 4096")
        try require(1...4096 ~= batch, "--batch must be 1 to 4096")
        try require(batch == 1 || (sizes.max() ?? 0) * batch <= 4 << 20, "a batch may have 4 MiB of bodies at most")
        try require(rate.map { $0 > 0 && $0 <= 1e8 } ?? true, "--rate must be above 0")
        try require(seconds > 0 && seconds <= 86_400, "--seconds must be above 0 and at most 86400")
        try require(warmUpSeconds >= 0 && warmUpSeconds <= 3600, "--warm-up must be 0 to 3600 seconds")
        try require(count.map { $0 > 0 } ?? true, "--count must be above 0")
        try require(1...1024 ~= queues, "--queues must be 1 to 1024")
        try require(1...1024 ~= pullSize, "--pull-size must be 1 to 1024")
        try require(!topic.isEmpty, "--topic must not be empty")
    }
}
