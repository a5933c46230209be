import ArgumentParser
import FilterEngine
import Glibc
import LinuxSystem
import Logging
import Supervision

/// Filter plugins: what is there, what a new one does, and putting it in or out without stopping anything else.
struct PluginCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plugin", abstract: "List, test, add and remove filter plugins.",
        discussion: """
            A plugin is a file lib….so in the plugin folder (setting pluginDirectory). A running platform takes a new file \
            at once; when one is replaced or removed a fresh filter worker takes over, and nothing else is restarted.
            """,
        subcommands: [List.self, Test.self, Add.self, Remove.self])

    struct Folder: ParsableArguments {
        @Option(
            name: .customLong("directory"),
            help: ArgumentHelp("The plugin folder (default: plugins beside the programs).", valueName: "DIR"))
        var given: String?

        var path: String { given ?? PluginCommand.ownFolder }

        func file(_ name: String) -> String { "\(path)/\(name)" }

        func names() throws -> [String] {
            guard access(path, R_OK | X_OK) == 0 else {
                throw CommandFailure("the plugin folder \(path) cannot be read: \(SystemError.text(errno))")
            }
            return try RealDisk().list(path).filter(FilterCatalogue.isPluginName).sorted()
        }
    }

    static var ownFolder: String {
        PluginFolder.standard(beside: (try? OwnProgram.folder()) ?? ".")
    }

    private static func require(_ name: String) throws {
        guard FilterCatalogue.isPluginName(name), !name.contains("/") else {
            throw ValidationError("a plugin's file is called lib….so, not \(name)")
        }
    }

    /// `apus plugin test FILE --brief` in a process of its own: a plugin that crashes does not take this one along.
    static func examine(_ file: String) throws -> (isGood: Bool, text: String) {
        let (ending, text) = try WaitedProgram.output(of: OwnProgram.itself, ["plugin", "test", file, "--brief"])
        if case .signal(let signal) = ending {
            return (false, "crashed when it was loaded (\(ChildProcess.signalName(signal)))")
        }
        return (ending == .code(0), text.split(separator: "\n").joined(separator: " "))
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the plugins of a folder.")

        @OptionGroup var folder: Folder

        func run() throws {
            for name in try folder.names() {
                let (isGood, text) = try PluginCommand.examine(folder.file(name))
                // Beside the executables lie other libraries, too.
                if folder.given == nil, !isGood, text.contains("without the entry symbol") { continue }
                print("\(name)\t\(isGood ? text : "refused: \(text)")")
            }
        }
    }

    struct Test: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Load a plugin, compile an expression, ask about a message.",
            discussion: """
                apus plugin test libPriceRange.so "price 10 20" --property price=15
                apus plugin test libApusSQL92Filter.so "a > 5 AND b = 'x'" --property a=7 --property b=x --benchmark

                Ends with 0 when the message matches (or when nothing was asked), 1 when it does not, 2 when the plugin or the \
                expression is refused.
                """)

        @Argument(help: "The plugin's file.") var file: String
        @Argument(help: "An expression to compile.") var expression: String?
        @Option(name: .shortAndLong, help: ArgumentHelp("A property of the message.", valueName: "NAME=VALUE"))
        var property: [String] = []
        @Option(help: "The message's tag.") var tag: String?
        @Option(help: "The message's body.") var body = ""
        @Flag(help: "Ask about a million messages and print the time one takes.") var benchmark = false
        @Flag(help: .hidden) var brief = false

        func validate() throws {
            for pair in property where !pair.contains("=") {
                throw ValidationError("--property \(pair): write it as NAME=VALUE")
            }
        }

        func run() throws {
            var logger = Logger(label: "plugin") { StreamLogHandler.standardError(label: $0) }
            logger.logLevel = .critical
            let catalogue = FilterCatalogue(logger: logger)
            let path = file.contains("/") ? file : "./\(file)"
            guard access(path, R_OK) == 0 else { throw refused("\(file) cannot be read: \(SystemError.text(errno))") }
            let plugin: FilterPlugin
            do throws(FilterPluginError) {
                plugin = try catalogue.load(path: path)
            } catch {
                throw refused("\(error)")
            }
            let release = plugin.release.isEmpty ? "" : " \(plugin.release)"
            print("\(plugin.name)\(release), expressions of the type \(plugin.type)")
            guard !brief, let expression else { return }
            let programs = FilterPrograms(catalogue: catalogue)
            let code = tag.map(FilterProbe.tagsCode) ?? 0
            switch programs.compile(type: plugin.type, expression: expression) {
            case .unavailable(let reason): throw refused(reason)
            case .refused(let position, let reason):
                let spaces = String(
                    repeating: " ", count: String(decoding: expression.utf8.prefix(Int(position)), as: UTF8.self).count)
                throw refused("\(expression)\n\(spaces)^\nat byte \(position): \(reason)")
            case .everything: try conclude(true, "every message matches")
            case .tagsCodes(let codes):
                try conclude(
                    codes.contains(code), "tags codes decide: \(codes.map(String.init).joined(separator: ", "))")
            case .program(let id, _):
                guard let program = programs.program(id) else {
                    preconditionFailure("a program that was just compiled")
                }
                try ask(FilterProbe(program), code)
            }
        }

        private func ask(_ probe: FilterProbe, _ code: Int64) throws {
            var all = property.map { $0.replacing("=", with: "\u{1}", maxReplacements: 1) }
            if let tag { all.append("TAGS\u{1}\(tag)") }
            let properties = Array(all.joined(separator: "\u{2}").utf8)
            let answer: (matches: Bool, nanoseconds: Double)
            do throws(FilterProbe.Failed) {
                answer = try probe.ask(
                    properties: properties, body: Array(body.utf8), tagsCode: code, copies: benchmark ? 1000 : 1,
                    batches: benchmark ? 1000 : 1)
            } catch {
                throw refused("the plugin failed to evaluate the expression")
            }
            try conclude(answer.matches, benchmark ? "\(fixed(answer.nanoseconds, 1)) ns a message" : "")
        }

        private func conclude(_ matches: Bool, _ words: String) throws {
            print("\(matches ? "matches" : "does not match")\(words.isEmpty ? "" : ": \(words)")")
            if !matches { throw ExitCode(1) }
        }

        private func refused(_ text: String) -> any Error {
            StandardError.write("\(text)\n")
            return ExitCode(2)
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Put a plugin into the folder, in place of one with the same file name.")

        @Argument(help: "The plugin's file, lib….so.") var file: String
        @OptionGroup var folder: Folder

        private var name: String { file.split(separator: "/").last.map(String.init) ?? "" }

        func validate() throws { try PluginCommand.require(name) }

        func run() throws {
            let (isGood, text) = try PluginCommand.examine(file.contains("/") ? file : "./\(file)")
            guard isGood else {
                StandardError.write("not added: \(text)\n")
                throw ExitCode(2)
            }
            // Complete before it has a name the filter worker looks at.
            let temporary = folder.file(".\(name).new")
            try Self.copy(file, to: temporary)
            try call("rename", folder.file(name)) { rename(temporary, folder.file(name)) }
            print("added \(folder.file(name)): \(text)")
        }

        private static func copy(_ file: String, to path: String) throws(SystemError) {
            let source = try Descriptor(owning: call("open", file) { open(file, O_RDONLY | O_CLOEXEC) })
            let copy = try Descriptor(
                owning: call("open", path) { open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644) })
            while try call("copy", path, { sendfile(copy.raw, source.raw, nil, 1 << 20) }) > 0 {}
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take a plugin's file out of the folder.")

        @Argument(help: "The file's name, lib….so.") var name: String
        @OptionGroup var folder: Folder

        func validate() throws { try PluginCommand.require(name) }

        func run() throws {
            guard access(folder.file(name), F_OK) == 0 else {
                throw CommandFailure("there is no \(name) in \(folder.path); apus plugin list shows what is there")
            }
            try call("unlink", folder.file(name)) { unlink(folder.file(name)) }
            print("removed \(folder.file(name))")
        }
    }
}
