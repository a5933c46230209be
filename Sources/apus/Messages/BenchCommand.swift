import ArgumentParser
import Bench
import Glibc

/// `apus bench`: options in, `Bench.run`, table or JSON out.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure a RocketMQ server: throughput, latency percentiles, CPU per message.",
        discussion: """
            Runs against any RocketMQ name server. Without --rate each connection sends the next request when an \
            answer arrives (closed loop). With --rate requests start by the clock and latency counts from the moment \
            a request was due, so a stall of the server shows in full (no coordinated omission).

              apus bench --connections 64
              apus bench --connections 4 --in-flight 64 --batch 16 --size 128,1024
              apus bench --mode both --rate 20000 --seconds 30 --cpu-of apus-broker-store
              apus bench --mode consume
            """)

    @OptionGroup var server: ServerOption

    @Option(name: [.long, .short], help: "Topic; created when it does not exist.", completion: Completions.topic)
    var topic = "BenchTopic"

    @Option(help: "Queues the topic gets when it is created.")
    var queues = 8

    @Option(help: "produce, consume (what is stored already, to its present end) or both.")
    var mode = BenchPlan.Mode.produce

    @Option(name: [.long, .short], help: "Body bytes; several sizes, comma-separated, are used in turn.")
    var size = "128"

    @Option(name: [.long, .short], help: "Producing connections.")
    var connections = 16

    @Option(help: "Consuming connections.")
    var consumeConnections = 4

    @Option(name: [.long, .customShort("i")], help: "Unanswered requests a connection keeps.")
    var inFlight = 1

    @Option(name: [.long, .short], help: "Messages a request carries.")
    var batch = 1

    @Option(name: [.long, .short], help: "Messages per second in total; without it as fast as answers come.")
    var rate: Double?

    @Option(help: "Seconds before measuring begins.")
    var warmUp = 1.0

    @Option(help: "Measured seconds.")
    var seconds = 10.0

    @Option(help: "End after so many measured messages.")
    var count: Int?

    @Option(help: "Header serialization: json or binary (ROCKETMQ).")
    var header = HeaderForm.json

    @Option(help: "Tag of every message sent.")
    var tag: String?

    @Option(help: "Tag expression of the consuming side.")
    var filter = "*"

    @Option(help: "Consumer group.", completion: Completions.group)
    var group = "BENCH_GROUP"

    @Option(help: "Messages asked for in one pull.")
    var pullSize = 32

    @Flag(help: "With --mode both: also consume what was stored before the run.")
    var fromFirst = false

    @Option(
        name: .customLong("cpu-of"), parsing: .singleValue,
        help: ArgumentHelp(
            "Charge the CPU time of these processes to the messages: a pid, an executable's name or a Java main class. "
                + "Repeatable.", valueName: "process"))
    var cpuOf: [String] = []

    @Flag(help: "Print the report as JSON.")
    var json = false

    func run() async throws {
        var plan = BenchPlan()
        plan.nameServer = server.addresses
        plan.topic = topic
        plan.queues = queues
        plan.mode = mode
        plan.sizes = try size.split(separator: ",").map { text in
            guard let size = Int(text.trimmingPrefix(" ")) else {
                throw ValidationError("--size '\(text)' is not a number of bytes")
            }
            return size
        }
        plan.produceConnections = connections
        plan.consumeConnections = consumeConnections
        plan.inFlight = inFlight
        plan.batch = batch
        plan.rate = rate
        plan.warmUpSeconds = warmUp
        plan.seconds = seconds
        plan.count = count
        plan.form = header
        plan.tag = tag
        plan.filter = filter
        plan.group = group
        plan.pullSize = pullSize
        plan.fromFirst = fromFirst
        plan.cpuOf = cpuOf

        let showsProgress = isatty(STDERR_FILENO) == 1
        let report: BenchReport
        do {
            report = try Bench.run(plan) { now in
                guard showsProgress else { return }
                let seconds = Int(now.seconds)
                writeToStandardError(
                    "\r\u{1B}[K\(now.phase.rawValue) \(seconds) s: acknowledged \(now.acknowledged), "
                        + "received \(now.received), failed \(now.failures)")
            }
        } catch {
            throw CommandFailure(error.description)
        }
        if showsProgress { writeToStandardError("\r\u{1B}[K") }
        print(json ? report.json : report.table)
        if report.countedMessages == 0 || report.failureCount > 0 { throw ExitCode(1) }
    }
}

extension BenchPlan.Mode: ExpressibleByArgument {}
extension HeaderForm: ExpressibleByArgument {}
