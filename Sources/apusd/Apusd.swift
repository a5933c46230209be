import ArgumentParser
import LinuxSystem
import Logging
import Supervision
import Systemd
import WorkerProtocol

/// The supervisor. `apus up` becomes this program, with the same options.
@main
struct Apusd: ParsableCommand {
    static let configuration = CommandConfiguration(
        // The names it is started by: RocketMQ's, and those of commands of `apus` that become this program.
        commandName: ["apus up", "apus config check", "apus config show", "mqbroker", "mqnamesrv"]
            .first { $0 == CommandLine.arguments.first } ?? "apusd",
        abstract: "Runs a message broker platform in the foreground.",
        discussion: """
            Without options: one worker of each kind on 127.0.0.1, data in the state directory. Prints one line on \
            standard output when everything serves: ready nameserver=… broker=… data=… pid=…. Ctrl-C or SIGTERM \
            drains and stops, twice hurries; SIGHUP reads the configuration again. Settings that cannot be used end it with \
            78.
            """,
        version: ApusRelease.version
    )

    @OptionGroup var options: PlatformOptions

    func run() throws {
        do {
            try serve()
        } catch let status as ExitCode {
            throw status
        } catch {
            StandardError.write("\(Self._commandName): \(error)\n")
            throw ExitCode(1)
        }
    }

    private func serve() throws {
        // For the workers' connections, which it keeps while they restart.
        OpenFiles.raiseLimit()
        // Before any other thread exists.
        let signals = try Signals(Platform.signalNumbers)
        let activated = SocketActivation.take()
        let dataDirectory = options.resolvedDataDirectory
        let executables = try options.workerDirectory ?? OwnProgram.folder()
        let source = ConfigurationSource(options: options, dataDirectory: dataDirectory, executables: executables)
        var configuration = try Apusd.read(source)
        if options.onlyLooks {
            if options.printConfiguration { print(configuration.listing) }
            if options.isCheck {
                try Apusd.askWorkers(configuration, executables, options.configurationPath)
                Apusd.report(configuration, options.configurationPath)
            }
            return
        }
        Logs.bootstrap(worker: "supervisor", level: configuration.logLevel.flatMap { Logger.Level(rawValue: $0) })
        let logger = Logger(label: "supervisor")

        let runDirectory = try RunDirectory(path: "\(dataDirectory)/run")
        let workersLock = try WorkersLock(in: runDirectory) {
            logger.notice("waiting for the workers of the platform that ended before")
        }
        configuration.setPlugins(PluginFolder(configuration.filter, executables: executables).count)
        let resources = try Resources(&configuration, activated: activated, store: .systemd)
        configuration.introduceNameserver()
        if !configuration.unknownKeys.isEmpty {
            let keys = configuration.unknownKeys.map(Apusd.unknown).joined(separator: ", ")
            logger.warning("settings without effect in Apus (passed on all the same): \(keys)")
        }
        var limits = SupervisorState.Limits()
        limits.heartbeatMillis = Int64(options.heartbeatMillis)
        let platform = try Platform(
            configuration, executables: executables, resources: resources, runDirectory: runDirectory,
            workersLock: workersLock, signals: signals, limits: limits, logger: logger, readAgain: { try source.read() }
        )
        throw ExitCode(try platform.run())
    }

    /// Starting again does not help, so that the unit does not try (RestartPreventExitStatus=).
    private static let unusableSettings = ExitCode(SettingsCheck.unusable)

    /// The bounds of a broker's numbers are its worker's to know.
    private static func askWorkers(
        _ configuration: PlatformConfiguration, _ executables: String, _ path: String?
    ) throws {
        var isUsable = true
        for broker in configuration.brokers {
            let name = "\(Self._commandName): \(path ?? "defaults")"
            let ending = try ChildProcess.spawn(
                path: "\(executables)/apus-\(WorkerKind.brokerStore.rawValue)",
                arguments: [name] + SettingsCheck.arguments(broker),
                environment: ChildProcess.environment(without: []), descriptors: [(0, 0), (1, 1), (2, 2)],
                parentDeathSignal: 0, ownProcessGroup: false
            ).wait()
            if ending != .code(0) { isUsable = false }
        }
        if !isUsable { throw unusableSettings }
    }

    private static func unknown(_ key: String) -> String {
        key + (KnownKeys.meant(by: key).map { " (is \($0) meant?)" } ?? "")
    }

    private static func report(_ configuration: PlatformConfiguration, _ path: String?) {
        for key in configuration.unknownKeys { print("without effect in Apus: \(unknown(key))") }
        let brokers = configuration.brokers.map { broker in
            "broker \(broker["brokerName"] ?? "") (\(broker["brokerRole"] ?? "")) on \(broker["bindAddress"] ?? ""):"
                + "\(broker["listenPort"] ?? ""), store in \(broker["storePathRootDir"] ?? "")"
        }
        let parts = (configuration.nameserverAddress.map { ["name server on \($0)"] } ?? []) + brokers
        print("\(path ?? "defaults"): usable\n  \(parts.joined(separator: "\n  "))")
    }

    private static func read(_ source: ConfigurationSource) throws -> PlatformConfiguration {
        do {
            return try source.read()
        } catch let error as ConfigurationError {
            StandardError.write("\(Self._commandName): \(error)\n")
            throw unusableSettings
        }
    }
}
