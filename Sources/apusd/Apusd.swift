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
            standard output when everything serves: ready nameserver=… broker=… console=… data=… pid=…. Ctrl-C or \
            SIGTERM drains and stops, twice hurries; SIGHUP reads the configuration again. Settings that cannot be \
            used end it with 78.
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
            Logs.fatal("\(Self._commandName): \(error)")
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
        if options.isCheck { return try check(source, executables) }
        var configuration = try Apusd.read(source)
        if options.printConfiguration { return print(configuration.listing) }
        Logs.bootstrap(worker: "supervisor", level: configuration.logLevel.flatMap { Logger.Level(rawValue: $0) })
        let logger = Logger(label: "supervisor")

        let runDirectory = try RunDirectory(path: "\(dataDirectory)/run")
        let workersLock = try WorkersLock(in: runDirectory) {
            logger.notice("waiting for the workers of the platform that ended before")
        }
        configuration.setPlugins(configuration.pluginFolder(executables: executables).names)
        let resources = try bind(&configuration, activated)
        configuration.introduceNameserver()
        for text in resources.omitted { logger.warning("\(text)") }
        Apusd.log(configuration.notes, logger)
        var limits = SupervisorState.Limits()
        limits.heartbeatMilliseconds = Int64(options.heartbeatMilliseconds)
        let platform = Platform(
            configuration, executables: executables, resources: resources, runDirectory: runDirectory,
            workersLock: workersLock, signals: signals, limits: limits, logger: logger, readAgain: { try source.read() }
        )
        throw ExitCode(try platform.run())
    }

    /// Starting again does not help, so that the unit does not try (RestartPreventExitStatus=).
    private static let unusableSettings = ExitCode(SettingsCheck.unusable)

    private static func read(_ source: ConfigurationSource) throws -> PlatformConfiguration {
        do {
            let (configuration, wrong, raw) = try source.draft()
            // Folders that cannot be written to are as wrong as a number; a disk that is away comes back, and its
            // broker waits for it.
            let problems = wrong + PlatformTrial().folderProblems(configuration, raw, disksToo: false)
            guard problems.isEmpty else { throw ConfigurationError(problems).located(in: raw.path) }
            return configuration
        } catch let error as ConfigurationError {
            say(error)
            throw unusableSettings
        }
    }

    private static func say(_ error: ConfigurationError) {
        for problem in error.problems { Logs.fatal("\(Self._commandName): \(problem)") }
    }

    /// Binds the ports. One that cannot be bound is reported with all others that cannot.
    private func bind(
        _ configuration: inout PlatformConfiguration, _ activated: [(name: String, fd: Int32)]
    ) throws -> Resources {
        let asked = configuration
        do {
            return try Resources(&configuration, activated: activated, store: .systemd)
        } catch {
            guard activated.isEmpty else { throw error }
            let all = PlatformTrial().portProblems(asked, RawConfiguration())
            throw all.count > 1 ? ConfigurationError(all) : error
        }
    }

    /// Few lines, however many settings of RocketMQ's a file brings along.
    private static func log(_ notes: [ConfigurationNote], _ logger: Logger) {
        for note in notes where !note.isHarmless { logger.warning("\(note)") }
        let harmless = notes.filter(\.isHarmless).map(\.name)
        guard !harmless.isEmpty else { return }
        logger.notice(
            """
            settings without effect in Apus, harmless (apus config check says why): \(harmless.joined(separator: ", "))
            """
        )
    }

    // MARK: - Checking

    /// Everything that is wrong at once; nothing is started, and nothing written.
    private func check(_ source: ConfigurationSource, _ executables: String) throws {
        let path = options.configurationPath
        do {
            let (configuration, wrong, raw) = try source.draft()
            let trial = PlatformTrial(file: path, dataDirectory: source.dataDirectory)
            var problems = wrong + trial.problems(configuration, raw, executables: executables)
            if wrong.isEmpty { problems += try Self.askWorkers(configuration, executables) }
            // What is only noted, such as a misspelt key, is printed beside what is wrong: one look shows all there is
            // to mend.
            for note in configuration.notes { print(note) }
            guard problems.isEmpty else { throw ConfigurationError(problems).located(in: path) }
            if let text = trial.portsNotTried { print(text) }
            Self.report(configuration, path)
        } catch let error as ConfigurationError {
            Self.say(error)
            throw Self.unusableSettings
        }
    }

    /// What the workers' programs themselves report about their settings.
    private static func askWorkers(
        _ configuration: PlatformConfiguration, _ executables: String
    ) throws -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        for worker in configuration.workers {
            let row = configuration.row(of: worker)
            guard row.checksSettings else { continue }
            let settings = configuration.settings(of: worker)
            let ending = try ChildProcess.spawn(
                path: "\(executables)/apus-\(worker.kind.rawValue)",
                arguments: [Self._commandName] + SettingsCheck.arguments(settings),
                environment: ChildProcess.environment(without: []), descriptors: [(0, 0), (1, 1), (2, 2)],
                parentDeathSignal: 0, ownProcessGroup: false
            ).wait()
            if ending != .code(0) {
                let name = row.nameKey.flatMap { settings[$0] } ?? "the \(row.title)"
                problems.append(ConfigurationProblem("the worker of \(name) refuses its settings, see above"))
            }
        }
        return problems
    }

    private static func report(_ configuration: PlatformConfiguration, _ path: String?) {
        let brokers = zip(configuration.brokers, configuration.announcedBrokers).map { broker, address in
            "broker \(broker["brokerName"] ?? "") (\(broker["brokerRole"] ?? "")) at \(address), "
                + "store in \(broker["storePathRootDir"] ?? "")"
        }
        let gateway = configuration.consoleAddress.map { ["gateway at \($0)"] } ?? []
        let parts = (configuration.announcedNameserver.map { ["name server at \($0)"] } ?? []) + brokers + gateway
        print("\(path ?? "defaults"): usable\n  \(parts.joined(separator: "\n  "))")
    }
}
