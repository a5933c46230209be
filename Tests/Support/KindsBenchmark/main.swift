// The measurements behind Tests/Scripts/kinds-benchmark: delays, members, memory of a running platform.
import Foundation

var options = Options()
var what = ""
var words = CommandLine.arguments.dropFirst()
while let word = words.popFirst() {
    switch word {
    case "--name-server": options.nameServer = words.popFirst() ?? ""
    case "--broker": options.broker = words.popFirst() ?? ""
    case "--data": options.data = words.popFirst() ?? ""
    case "--broker-pid": options.brokerPid = words.popFirst().flatMap { pid_t($0) } ?? 0
    default: what = word
    }
}
do {
    switch what {
    case "delays": try await Delays(options: options).run()
    case "pushes": try await Members(options: options).pushes()
    case "storm":
        try await Members(options: options).storm(
            ProcessInfo.processInfo.environment["STORM_MEMBERS"].flatMap { Int($0) } ?? 9_000)
    case "rebalances": try await Members(options: options).rebalances()
    case "memory": try await Memory(options: options).run()
    case "pops": try await Pops(options: options).run()
    default:
        fail(
            "usage: KindsBenchmark delays|pushes|storm|rebalances|memory|pops --name-server A --broker A --broker-pid N --data D"
        )
    }
} catch {
    fail("\(what): \(error)")
}
