import ArgumentParser
import FastJSON
import FilterEngine
import Glibc
import LinuxSystem
import Logging

/// `apus plugin test`: a plugin in a process like a filter worker, with its limits; and a description of what happened.
struct PluginTest: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test", abstract: "Load a plugin, compile an expression, ask about messages.",
        discussion: """
              apus plugin test libPriceRange.so "price 10 20" --property price=15
              apus plugin test libApusSQL92Filter.so "a > 5 AND b = 'x'" --property a=7 --property b=x --benchmark
              apus consume --topic Orders --json --count 10 > orders.jsonl
              apus plugin test libPriceRange.so "price 10 20" --message orders.jsonl
              apus plugin test libPriceRange.so --cases cases.jsonl
              apus plugin test libApusSQL92Filter.so "PLUGIN('RANGE', 'price 10 20')" --with libPriceRange.so -p \
              price=15

            The plugin runs as in a filter worker: without network, files and processes, with limits of memory and \
            time. A file of messages has one JSON object a line, as apus consume --json prints them: properties, tag, \
            body, bornTime, time. A file of cases has the same with expression and matches (true or false), or \
            refused (true).

            Ends with 0 when the message matches (all cases are as they should be; or when nothing was asked), 1 when \
            not, 2 when the plugin or the expression is refused, 3 when the plugin crashes, does not come to an end, \
            calls exit or uses up the memory.
            """)

    @Argument(help: "The plugin's file.", completion: .file()) var file: String
    @Argument(help: "An expression to compile.") var expression: String?
    @Option(name: .shortAndLong, help: ArgumentHelp("A property of the message.", valueName: "NAME=VALUE"))
    var property: [String] = []
    @Option(help: "The message's tag.") var tag: String?
    @Option(help: "The message's body.") var body = ""
    @Option(help: ArgumentHelp("When it was made: milliseconds since 1970.", valueName: "MILLIS")) var born: Int64 = 0
    @Option(help: ArgumentHelp("When it was stored: milliseconds since 1970.", valueName: "MILLIS"))
    var stored: Int64 = 0
    @Option(help: ArgumentHelp("Messages as apus consume --json prints them.", valueName: "FILE"), completion: .file())
    var message: String?
    @Option(
        help: ArgumentHelp("Cases: expressions, messages and what should come of it.", valueName: "FILE"),
        completion: .file())
    var cases: String?
    @Option(help: ArgumentHelp("Another plugin, for expressions that call it.", valueName: "FILE"), completion: .file())
    var with: [String] = []
    @Flag(help: "Ask about a million messages and print the time one takes.") var benchmark = false
    @Option(help: ArgumentHelp("Memory it may use.", valueName: "MEGABYTES")) var memory = 512
    @Option(help: ArgumentHelp("The longest one call may take.", valueName: "MILLIS")) var timeBudget = 1000
    @Option(help: ArgumentHelp("The longest the whole test may take.", valueName: "SECONDS")) var timeout = 60
    @Flag(help: .hidden) var brief = false
    /// This is the process the plugin runs in.
    @Flag(help: .hidden) var inside = false

    func validate() throws {
        for pair in property where !pair.contains("=") {
            throw ValidationError("--property \(pair): write it as NAME=VALUE")
        }
        guard 64...65_536 ~= memory else { throw ValidationError("--memory must be 64 to 65536") }
        guard 1...600_000 ~= timeBudget else { throw ValidationError("--time-budget must be 1 to 600000") }
        guard 1...86_400 ~= timeout else { throw ValidationError("--timeout must be 1 to 86400") }
        if cases != nil, expression != nil || message != nil || benchmark {
            throw ValidationError("--cases brings expressions and messages itself")
        }
        if message != nil, expression == nil { throw ValidationError("--message needs an expression to ask with") }
    }

    func run() throws {
        if inside {
            try PluginTrial(self).run()
        } else {
            try watch()
        }
    }

    /// Runs the trial in a process of its own, and returns what became of that.
    private func watch() throws {
        let segment = try SharedSegment.create(name: "plugin-test", bytes: PluginTrial.segmentBytes)
        fflush(nil)
        let null = try RunDirectory.openNull()
        var arguments = Array(CommandLine.arguments.dropFirst())
        arguments.insert("--inside", at: min(2, arguments.count))
        let child = try ChildProcess.spawn(
            path: OwnProgram.itself, arguments: [CommandLine.arguments.first ?? "apus"] + arguments,
            environment: ChildProcess.environment(without: []),
            descriptors: [(null.raw, 0), (1, 1), (2, 2), (segment.fd, PluginTrial.descriptor)],
            parentDeathSignal: SIGKILL, ownProcessGroup: false)
        let ending = try end(of: child)
        if let code = PluginConduct.finished(in: segment) {
            if code != 0 { throw ExitCode(code) }
            return
        }
        var limits = PluginConduct.Limits()
        limits.budgetMilliseconds = UInt32(timeBudget)
        var verdict = PluginConduct.verdict(in: segment, limits: limits)
        switch ending {
        case nil: verdict = verdict ?? "it did not come to an end within \(timeout) s"
        case .code(let code)?:
            // What happened before the trial began the trial has reported itself.
            if verdict == nil, code != 0, !PluginConduct.hasBegun(segment) { throw ExitCode(code) }
            verdict = verdict ?? "it ended the process with code \(code)"
        case .signal(let signal)?: verdict = verdict ?? "it crashed (\(ChildProcess.signalName(signal)))"
        }
        StandardError.write(
            "\(file): \(verdict ?? ""). In a filter worker this costs that worker, and counts against the plugin.\n")
        throw ExitCode(3)
    }

    /// nil: its time was over, and it was killed.
    private func end(of child: ChildProcess) throws -> ChildProcess.Ending? {
        var polled = pollfd(fd: child.pidfd.raw, events: Int16(POLLIN), revents: 0)
        let limit = MonotonicClock.milliseconds + Int64(timeout) * 1000
        while true {
            let left = limit - MonotonicClock.milliseconds
            if left <= 0 {
                try child.send(signal: SIGKILL)
                _ = try child.wait()
                return nil
            }
            try call("poll", "plugin test") { poll(&polled, 1, Int32(clamping: left)) }
            if let ending = try child.reap() { return ending }
        }
    }
}
