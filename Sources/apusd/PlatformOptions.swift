import ArgumentParser
import Glibc
import Supervision

struct PlatformOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Stores, configuration and the admin socket.", valueName: "DIR"), completion: .directory)
    var dataDir: String?

    @Option(help: ArgumentHelp("apus.toml, or a RocketMQ broker.conf.", valueName: "FILE"), completion: .file())
    var config: String?

    @Option(help: ArgumentHelp("Name server port; 0 picks a free one (default: 9876).", valueName: "N"))
    var nameserverPort: UInt16?

    @Option(
        help: ArgumentHelp(
            "Broker port; the VIP port is 2 below, the HA port 1 above; 0 picks free ones (default: 10911).",
            valueName: "N"))
    var brokerPort: UInt16?

    @Flag(name: .customLong("no-nameserver"), help: "No name server of its own; needs --namesrv-addr.")
    var withoutNameserver = false

    @Flag(name: .customLong("no-broker"), help: "A name server only.")
    var withoutBroker = false

    @Flag(name: .customLong("no-console"), help: "No gateway: no HTTP.")
    var withoutGateway = false

    @Option(help: ArgumentHelp("Port of the gateway for HTTP; 0 picks a free one (default: 8080).", valueName: "N"))
    var consolePort: UInt16?

    @Option(help: ArgumentHelp("Name servers to register with, as well.", valueName: "HOST:PORT;…"))
    var namesrvAddr: String?

    @Option(help: ArgumentHelp("Address to listen on (default: 127.0.0.1).", valueName: "IP"))
    var bindAddress: String?

    @Option(help: ArgumentHelp("async-master, sync-master or slave.", valueName: "ROLE"))
    var brokerRole: String?

    @Option(
        name: .customLong("broker-id"), help: ArgumentHelp("0 is the master, above 0 a slave.", valueName: "N"))
    var brokerID: Int?

    @Option(help: ArgumentHelp("Master and slaves share it (default: broker-a).", valueName: "NAME"))
    var brokerName: String?

    @Option(help: ArgumentHelp("The master's HA address, for a slave.", valueName: "HOST:PORT"))
    var haMasterAddress: String?

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp(
            "Any RocketMQ broker setting; nameserver.KEY, filter.KEY and gateway.KEY for those.", valueName: "KEY=VALUE"
        ))
    var settings: [String] = []

    @Option(help: ArgumentHelp("trace, debug, info, notice, warning, error or critical.", valueName: "LEVEL"))
    var logLevel: String?

    @Flag(name: .customLong("check"), help: "Read the settings, print what is wrong or without effect, and end.")
    var isCheck = false

    @Flag(help: "Print every setting, defaults included, and end.")
    var printConfiguration = false

    @Option(
        name: .customLong("heartbeat-millis"),
        help: ArgumentHelp("Interval of heartbeats; five unanswered mean a hanging worker.", visibility: .hidden))
    var heartbeatMilliseconds = 1000

    @Option(help: ArgumentHelp("Where the worker executables lie, instead of beside apusd.", visibility: .hidden))
    var workerDirectory: String?

    /// Nothing is started, and nothing written.
    var onlyLooks: Bool { isCheck || printConfiguration }

    mutating func validate() throws {
        for setting in settings where !setting.contains("=") {
            throw ValidationError("--set \(setting): write it as KEY=VALUE")
        }
        guard (10...60_000).contains(heartbeatMilliseconds) else {
            throw ValidationError("--heartbeat-millis must be 10 to 60000")
        }
    }

    /// Under systemd StateDirectory=, otherwise the user's own state folder.
    var resolvedDataDirectory: String {
        StateFolder.absolute(dataDir ?? StateFolder.ofUnit ?? StateFolder.ofUser ?? StateFolder.ofService)
    }

    /// The file to read: the one named, or under systemd what lies in ConfigurationDirectory=.
    var configurationPath: String? {
        if let config { return config }
        guard let folder = StateFolder.variable("CONFIGURATION_DIRECTORY")?.split(separator: ":").first
        else { return nil }
        return ["apus.toml", "broker.conf"].map { "\(folder)/\($0)" }
            .first { access($0, F_OK) == 0 }
    }
}
