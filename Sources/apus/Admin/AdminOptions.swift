import ArgumentParser
import RocketMQClient
import Supervision

/// `-n`, as every command of RocketMQ's tool has it.
struct NameServerOption: ParsableArguments {
    @Option(
        name: [.customShort("n"), .customLong("namesrvAddr")], parsing: .unconditional,
        help: ArgumentHelp(
            "Name servers, separated by ';' (default: $NAMESRV_ADDR, else 127.0.0.1:9876).", valueName: "HOST:PORT;…"))
    var namesrvAddr: String?

    var addresses: String { namesrvAddr ?? NameServers.standard }
}

/// `--name-server`, as the commands of our own have it.
struct ServerOption: ParsableArguments {
    @Option(
        name: [.customShort("n"), .customLong("name-server")], parsing: .unconditional,
        help: ArgumentHelp(
            "Name servers, separated by ';' (default: $NAMESRV_ADDR, else 127.0.0.1:9876).", valueName: "HOST:PORT;…"))
    var given: String?

    var addresses: String { given ?? NameServers.standard }
}

/// `--separator`
struct SeparatorOption: ParsableArguments {
    @Option(
        name: .customLong("separator"), parsing: .unconditional,
        help: ArgumentHelp("What separates columns (default: tab).", valueName: "TEXT"))
    var given: String?

    var text: String { given ?? "\t" }
}

/// Where the name servers are when no option names them.
enum NameServers {
    /// RocketMQ's environment variable, else this machine's.
    static var standard: String { StateFolder.variable("NAMESRV_ADDR") ?? "127.0.0.1:9876" }
}

/// `-b` or `-c`: one broker by its address, or the brokers of a cluster.
struct BrokerOrCluster: ParsableArguments {
    @Option(
        name: [.customShort("b"), .customLong("brokerAddr")], parsing: .unconditional,
        help: ArgumentHelp("One broker.", valueName: "HOST:PORT"))
    var broker: String?

    @Option(
        name: [.customShort("c"), .customLong("clusterName")], parsing: .unconditional,
        help: ArgumentHelp("All brokers of a cluster.", valueName: "NAME"))
    var cluster: String?

    /// Without both: all brokers.
    var choice: BrokerChoice {
        if let broker { return .address(broker) }
        return cluster.map { .cluster($0) } ?? .all
    }

    func requireOne() throws {
        guard (broker == nil) != (cluster == nil) else {
            throw ValidationError("say where: either a broker with -b HOST:PORT or a cluster with -c NAME")
        }
    }
}
