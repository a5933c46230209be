import ArgumentParser
import FastJSON
import FilterEngine
import Glibc
import LinuxSystem
import WorkerProtocol

/// Filter plugins: what is there, what a new one does, and putting it in or out without stopping anything else.
struct PluginCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plugin", abstract: "List, test, add, remove and pardon filter plugins.",
        discussion: """
            A plugin is a file lib….so in the plugin folder (setting pluginDirectory). A running platform takes a new \
            file within a second; when one is replaced or removed fresh workers for plugins take over, and nothing \
            else is restarted.
            Without --directory the folder is that of the running platform, else that of an installed Apus.
            """,
        subcommands: [
            List.self, PluginTest.self, Add.self, Remove.self, PluginStatus.self, Pardon.self,
        ])

    struct Folder: ParsableArguments {
        @Option(
            name: .customLong("directory"),
            help: ArgumentHelp("The plugin folder (default: the running platform's).", valueName: "DIR"),
            completion: .directory)
        var given: String?

        @OptionGroup var platform: ControlClient.DataDirectory

        var path: String {
            if let given { return given }
            if let folder = PluginReport.running(platform)?.folder, !folder.isEmpty { return folder }
            return PluginPlaces.standard(
                executables: (try? OwnProgram.folder()) ?? ".", dataDirectory: platform.path)
        }

        func names(_ path: String) throws -> [String] {
            guard access(path, R_OK | X_OK) == 0 else {
                throw CommandFailure("the plugin folder \(path) cannot be read: \(SystemError.text(errno))")
            }
            return try RealDisk().list(path).filter(PluginPlaces.isPluginName).sorted()
        }

        /// What the running platform reports, when it looks into this folder.
        func report(on path: String) -> PluginReport? {
            guard let report = PluginReport.running(platform), report.folders.contains(where: { same($0, path) }) else {
                return nil
            }
            return report
        }

        private func same(_ a: String, _ b: String) -> Bool {
            var (first, second) = (stat(), stat())
            guard stat(a, &first) == 0, stat(b, &second) == 0 else { return a == b }
            return first.st_dev == second.st_dev && first.st_ino == second.st_ino
        }
    }

    private static func require(_ name: String) throws {
        guard PluginPlaces.isPluginName(name), !name.contains("/") else {
            throw ValidationError("a plugin's file is called lib….so, not \(name)")
        }
    }

    /// `apus plugin test FILE --brief`: a plugin that crashes does not take this process along.
    static func examine(_ file: String) throws -> (isGood: Bool, text: String) {
        let (ending, text) = try WaitedProgram.output(of: OwnProgram.itself, ["plugin", "test", file, "--brief"])
        return (ending == .code(0), text.split(separator: "\n").joined(separator: " "))
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the plugins of a folder, and what the running platform makes of them.")

        @OptionGroup var folder: Folder

        func run() throws {
            let path = folder.path
            let report = folder.report(on: path)
            if folder.given == nil {
                for file in BuiltInPlugins.find(beside: try OwnProgram.folder()).paths {
                    let name = file.split(separator: "/").last.map(String.init) ?? file
                    let (isGood, text) = try PluginCommand.examine(file)
                    let use = report.map { "\t\($0.use(of: name))" } ?? ""
                    print("\(name)\t\(isGood ? text : "refused: \(text)"), comes with Apus\(use)")
                    for dependent in report?.dependents(of: name) ?? [] { print("  \(PlainText.escaped(dependent))") }
                }
                guard access(path, F_OK) == 0 else { return }
            }
            for name in try folder.names(path) {
                let (isGood, text) = try PluginCommand.examine("\(path)/\(name)")
                let use = report.map { "\t\($0.use(of: name))" } ?? ""
                print("\(name)\t\(isGood ? text : "refused: \(text)")\(use)")
                for dependent in report?.dependents(of: name) ?? [] { print("  \(PlainText.escaped(dependent))") }
            }
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Put a plugin into the folder, in place of one with the same file name.",
            discussion: "Waits until the running platform has loaded it, and ends with 1 when that refuses it.")

        @Argument(help: "The plugin's file, lib….so.", completion: .file()) var file: String
        @OptionGroup var folder: Folder
        @Option(help: ArgumentHelp("How long to wait for the platform to take it.", valueName: "SECONDS"))
        var timeout = 10

        private var name: String { file.split(separator: "/").last.map(String.init) ?? "" }

        func validate() throws {
            try PluginCommand.require(name)
            if PluginPlaces.builtIns.contains(name) {
                throw ValidationError("\(name) is the name of a plugin that comes with Apus; call yours otherwise")
            }
        }

        func run() throws {
            let (isGood, text) = try PluginCommand.examine(file.contains("/") ? file : "./\(file)")
            guard isGood else {
                StandardError.write("not added: \(text)\n")
                throw ExitCode(2)
            }
            let path = folder.path
            if let other = folder.report(on: path)?.rows.first(where: { $0.file != name && $0.type == Self.type(text) })
            {
                StandardError.write(
                    "not added: expressions of the type \(other.type ?? "") are served by \(other.file); remove it "
                        + "first, or call yours the same\n")
                throw ExitCode(2)
            }
            if folder.given == nil, access(path, F_OK) != 0, mkdir(path, 0o755) != 0 {
                throw CommandFailure(
                    "there is no plugin folder \(path), and it cannot be made: \(SystemError.text(errno))")
            }
            // Complete before it has a name the filter worker looks at.
            let temporary = "\(path)/.\(name).new"
            try Self.copy(file, to: temporary)
            let target = "\(path)/\(name)"
            try call("rename", target) { rename(temporary, target) }
            print("added \(target): \(text)")
            try awaitUse(path)
        }

        /// The type in the report of `examine`.
        private static func type(_ text: String) -> String? {
            let phrase = " expressions of the type "
            var rest = text[...]
            while let at = rest.firstIndex(of: ",") {
                rest = rest[rest.index(after: at)...]
                if rest.hasPrefix(phrase) { return String(rest.dropFirst(phrase.count)) }
            }
            return nil
        }

        /// Prints what the running platform made of it.
        private func awaitUse(_ path: String) throws {
            guard folder.report(on: path) != nil else {
                if folder.platform.runningPid != nil {
                    print("the running platform does not look into \(path): its folder is the setting pluginDirectory")
                }
                return
            }
            guard let identity = FrozenFile.Identity.of("\(path)/\(name)") else { return }
            let end = MonotonicClock.milliseconds + Int64(timeout) * 1000
            while MonotonicClock.milliseconds < end {
                if let rows = PluginReport.running(folder.platform)?.rows(of: name), !rows.isEmpty,
                    rows.allSatisfy({ $0.modified == identity.modified && !$0.isPending }),
                    // Its own worker has reported, unless its record is another's business.
                    rows.contains(where: { $0.isMine && $0.role == "plugins" || $0.history != nil })
                {
                    let use = PluginReport.use(rows)
                    print(use)
                    if rows.contains(where: { $0.refusal != nil && $0.isMine }) { throw ExitCode(1) }
                    return
                }
                usleep(50_000)
            }
            StandardError.write("the platform has not taken \(name) within \(timeout) s: apus plugin status\n")
            throw ExitCode(1)
        }

        private static func copy(_ file: String, to path: String) throws(SystemError) {
            let source = try Descriptor(owning: call("open", file) { open(file, O_RDONLY | O_CLOEXEC) })
            let copy = try Descriptor(
                owning: call("open", path) { open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644) })
            // Readable for the service's user, whatever the umask.
            try call("fchmod", path) { fchmod(copy.raw, 0o644) }
            while try call("copy", path, { sendfile(copy.raw, source.raw, nil, 1 << 20) }) > 0 {}
            try call("fsync", path) { fsync(copy.raw) }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take a plugin's file out of the folder.")

        @Argument(help: "The file's name, lib….so.", completion: Completions.plugin) var name: String
        @OptionGroup var folder: Folder
        @Flag(name: .shortAndLong, help: "Do not ask.") var yes = false

        func validate() throws { try PluginCommand.require(name) }

        func run() throws {
            var path = folder.path
            if folder.given == nil, PluginPlaces.builtIns.contains(name),
                let file = BuiltInPlugins.find(beside: try OwnProgram.folder()).paths.first(where: {
                    $0.hasSuffix("/\(name)")
                })
            {
                path = String(file.dropLast(name.count + 1))
            }
            guard access("\(path)/\(name)", F_OK) == 0 else {
                throw CommandFailure("there is no \(name) in \(path); apus plugin list shows what is there")
            }
            if PluginPlaces.builtIns.contains(name), !yes {
                try confirm(
                    "\(name) comes with Apus: without it subscriptions by \(name.contains("Tag") ? "tag" : "SQL92") "
                        + "stop and the service does not start. Remove it?")
            } else if !yes, let rows = folder.report(on: path)?.dependents(of: name), !rows.isEmpty {
                let more = rows.count > 3 ? "\n  … (apus plugin status \(name) shows all)" : ""
                try confirm(
                    "\(name) is needed by \(counted(rows.count, "subscription")):\n  "
                        + "\(rows.prefix(3).map { PlainText.escaped($0) }.joined(separator: "\n  "))\(more)\nRemove it?"
                )
            }
            try call("unlink", path) { unlink("\(path)/\(name)") }
            print("removed \(path)/\(name)")
        }

        /// Without a terminal to ask at the answer is no.
        private func confirm(_ question: String) throws {
            guard isatty(0) == 1 else {
                StandardError.write("\(question)\nnot removed: there is no terminal to ask at; --yes says so\n")
                throw ExitCode(1)
            }
            StandardError.write("\(question) [y/N] ")
            guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else {
                StandardError.write("not removed\n")
                throw ExitCode(1)
            }
        }
    }

    struct Pardon: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forget what is held against a plugin: it is called again at once.",
            discussion: "A mended version needs no pardon: what is held against a file belongs to its contents.")

        @Argument(help: "The plugin's file, lib….so, its name or its type.", completion: Completions.plugin) var name:
            String
        @OptionGroup var platform: ControlClient.DataDirectory

        func validate() throws {
            guard !name.isEmpty, name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "-_.@".contains($0)) })
            else { throw ValidationError("\(name): give the plugin's file, its name or its type") }
        }

        func run() throws {
            guard platform.runningPid != nil else { throw CommandFailure(platform.nothingRuns) }
            let report = PluginReport.running(platform)
            guard let rows = report?.rows(called: name), !rows.isEmpty else {
                throw CommandFailure("the platform knows no plugin \(name): apus plugin status shows all")
            }
            if let error = try ControlClient(platform).answer(to: "pardon \(name)")["error"]?.string {
                throw CommandFailure(error)
            }
            let histories = Set(rows.compactMap(\.history)).sorted()
            print(
                histories.isEmpty
                    ? "nothing is held against \(name)" : "forgotten: \(histories.joined(separator: "; "))")
        }
    }
}
