import ArgumentParser
import Glibc
import LinuxSystem
import Supervision

/// What `mqnamesrv` and `mqbroker` have in common. Each is a platform of one role in the foreground, with RocketMQ's
/// options and RocketMQ's habit of listening on every address.
struct RoleOptions: ParsableArguments {
    @Option(
        name: [.customShort("c"), .customLong("configFile")],
        help: ArgumentHelp("RocketMQ's properties, or apus.toml.", valueName: "FILE"), completion: .file())
    var file: String?

    @Option(
        name: [.customShort("n"), .customLong("namesrvAddr")],
        help: ArgumentHelp("Name servers (default: $NAMESRV_ADDR).", valueName: "HOST:PORT;…"))
    var namesrvAddr: String?

    @Flag(
        name: [.customShort("p"), .customLong("printConfigItem")], help: "Print all settings and end.")
    var printAll = false

    @Flag(
        name: [.customShort("m"), .customLong("printImportantConfig")], help: "The same.")
    var printImportant = false

    /// What the file contains, so that it wins over our own defaults.
    func settings() throws -> [String: String] {
        guard let file, !file.hasSuffix(".toml") else { return [:] }
        return try PropertiesFile.parse(TextFile.read(file))
    }

    /// The arguments of `apusd`, but for those of the role.
    func arguments(dataDirectory: String, settings: [String: String]) -> [String] {
        var arguments = ["--data-dir", dataDirectory]
        if let file { arguments += ["--config", file] }
        // A TOML file names its listeners itself.
        if !(file?.hasSuffix(".toml") ?? false), settings["bindAddress"] == nil {
            arguments += ["--bind-address", "0.0.0.0"]
        }
        if printAll || printImportant { arguments.append("--print-configuration") }
        return arguments
    }
}

/// Where the platforms these names start keep their run directories, and which are there.
enum RoleDirectories {
    private static var state: String { StateFolder.ofUser ?? StateFolder.ofService }

    /// - Parameter part: distinguishes several of one role, such as two brokers on one machine.
    static func path(_ role: String, _ part: String? = nil) -> String {
        "\(state)/mq\(role)" + (part.map { "-\($0)" } ?? "")
    }

    /// Those of a role in which a platform of ours runs.
    static func running(_ role: String) -> [(directory: String, pid: Int32)] {
        let names = (try? RealDisk().list(state)) ?? []
        return names.sorted().filter { $0 == "mq\(role)" || $0.hasPrefix("mq\(role)-") }.compactMap { name in
            RunDirectory.runningPid(path: "\(state)/\(name)/run").map { ("\(state)/\(name)", $0) }
        }
    }
}

/// RocketMQ's name for a name server in the foreground.
struct MQNamesrv: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mqnamesrv", abstract: "Run a name server in the foreground.",
        discussion: """
            Port 9876 on every address unless the file says otherwise (listenPort, bindAddress). Ctrl-C or \
            `mqshutdown namesrv` stops it. As a service: systemctl enable --now apus@nameserver.
            """, version: ApusRelease.version)

    @OptionGroup var options: RoleOptions

    func run() throws {
        let settings = try options.settings()
        var arguments = options.arguments(
            dataDirectory: RoleDirectories.path("namesrv"), settings: settings)
        arguments += ["--no-broker"]
        if let port = settings["listenPort"] { arguments += ["--nameserver-port", port] }
        for key in ["kvConfigPath", "orderMessageEnable"] {
            if let value = settings[key] { arguments += ["--set", "nameserver.\(key)=\(value)"] }
        }
        try Beside.become("apusd", arguments, as: "mqnamesrv")
    }
}

/// RocketMQ's name for a broker in the foreground.
struct MQBroker: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mqbroker", abstract: "Run a broker in the foreground.",
        discussion: """
            Without a name server: -n says where one runs. The store is where the file says (storePathRootDir), else \
            in ~/store, as RocketMQ has it. Ctrl-C or `mqshutdown broker` stops it. As a service: systemctl enable \
            --now apus@broker.

              mqbroker -n 10.0.0.1:9876 -c conf/broker.conf
            """, version: ApusRelease.version)

    @OptionGroup var options: RoleOptions

    func run() throws {
        let settings = try options.settings()
        let name = settings["brokerName"].map { "\($0)-\(settings["brokerID"] ?? "0")" }
        var arguments = options.arguments(
            dataDirectory: RoleDirectories.path("broker", name), settings: settings)
        arguments += ["--no-nameserver"]
        let addresses = options.namesrvAddr ?? settings["namesrvAddr"]
        if addresses == nil,
            options.file?.hasSuffix(".toml") != true || StateFolder.variable("NAMESRV_ADDR") != nil
        {
            arguments += ["--namesrv-addr", NameServers.standard]
        } else if let given = options.namesrvAddr {
            arguments += ["--namesrv-addr", given]
        }
        if options.file?.hasSuffix(".toml") != true, settings["storePathRootDir"] == nil {
            guard let home = StateFolder.home() else {
                throw CommandFailure(
                    "no home folder for the store: HOME is not set and the system's list of users has none for uid "
                        + "\(geteuid()); set HOME, or name the store in a file (-c FILE with storePathRootDir = …)")
            }
            arguments += ["--set", "storePathRootDir=\(home)/store"]
        }
        try Beside.become("apusd", arguments, as: "mqbroker")
    }
}

/// RocketMQ's name for stopping either.
struct MQShutdown: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mqshutdown", abstract: "Stop what mqbroker or mqnamesrv started, or its service.",
        discussion: """
            Only platforms of Apus are stopped: those in the foreground by their run directories, services of systemd \
            by systemctl.
            """, version: ApusRelease.version)

    enum Role: String, ExpressibleByArgument, CaseIterable {
        case broker, namesrv

        /// The service that has this role alone.
        var unit: String { self == .broker ? "apus@broker.service" : "apus@nameserver.service" }
    }

    @Argument(help: "broker or namesrv.") var role: Role

    func run() throws {
        var stopped = 0
        for (directory, pid) in RoleDirectories.running(role.rawValue) {
            print("The mq\(role.rawValue)(\(pid)) is running...")
            try Down.stop(ControlClient.DataDirectory(directory), pid: pid)
            stopped += 1
        }
        if Self.isActive(role.unit) {
            try Self.systemctl("stop", role.unit)
            print("stopped \(role.unit)")
            stopped += 1
        }
        guard stopped == 0 else { return }
        guard !Self.isActive("apus.service") else {
            throw CommandFailure(
                "apus.service runs name server and broker together; stop both with: systemctl stop apus")
        }
        throw CommandFailure("No mq\(role.rawValue) running.")
    }

    private static func isActive(_ unit: String) -> Bool {
        // Without systemd there is nothing to ask.
        guard access("/run/systemd/system", F_OK) == 0 else { return false }
        return (try? run(["is-active", "--quiet", unit])) == .code(0)
    }

    private static func systemctl(_ action: String, _ unit: String) throws {
        guard try run([action, unit]) == .code(0) else { throw CommandFailure("systemctl \(action) \(unit) failed") }
    }

    private static func run(_ arguments: [String]) throws -> ChildProcess.Ending {
        try WaitedProgram.run("/usr/bin/env", ["systemctl"] + arguments)
    }
}
