import ArgumentParser
import FastJSON
import RocketMQClient
import Supervision

/// One command of RocketMQ's `mqadmin`: same name, same options, same columns.
protocol AdminCommand: AsyncParsableCommand {
    var server: NameServerOption { get }

    func execute(_ client: AdminClient) async throws
}

extension AdminCommand {
    func run() async throws {
        try await AdminClient.using(server.addresses) { try await execute($0) }
    }
}

extension AdminClient {
    /// Runs a command's work with a client that is closed after it.
    ///
    /// - Parameter addresses: name servers, separated by `;`.
    /// - Throws: `CommandFailure` for the client's failures; what `work` throws otherwise.
    static func using(_ addresses: String, _ work: (AdminClient) async throws -> Void) async throws {
        let client: AdminClient
        do throws(RocketMQClientError) {
            var settings = ClientSettings(nameServers: addresses)
            settings.clientVersion = "apus \(ApusRelease.version)"
            client = try AdminClient(settings)
        } catch {
            throw CommandFailure("--name-server is empty: give its address, such as 127.0.0.1:9876")
        }
        do {
            try await work(client)
        } catch let error as RocketMQClientError {
            await client.close()
            throw CommandFailure(AdminFailure.text(error))
        } catch {
            await client.close()
            throw error
        }
        await client.close()
    }
}

/// A command that shows something: it asks for a value, and the value becomes lines, or JSON with `--json`.
protocol ShowingCommand: AdminCommand {
    associatedtype Value

    var output: AdminOutput { get }

    /// Asks servers. Shows nothing.
    func ask(_ client: AdminClient) async throws -> Value
    /// The value as RocketMQ's tool prints it. Asks nothing.
    func lines(_ value: Value) -> [String]
    /// The value for programs; the command's help names the keys.
    func json(_ value: Value) -> JSONValue
    /// What could not be asked, for standard error.
    func warnings(_ value: Value) -> [String]
    /// - Throws: why the command fails although there is something to show.
    func check(_ value: Value) throws
}

extension ShowingCommand {
    func warnings(_ value: Value) -> [String] { [] }

    func check(_ value: Value) throws {}

    func execute(_ client: AdminClient) async throws { try await show(client) }

    /// Asks and shows once.
    func show(_ client: AdminClient) async throws {
        let value = try await ask(client)
        for warning in warnings(value) { writeToStandardError("\(warning)\n") }
        output.show(json: { json(value) }, lines: { lines(value) })
        try check(value)
    }
}

/// A command that shows parts while it goes on: each becomes lines, or one line of JSON with `--json`.
protocol StreamingCommand: AdminCommand {
    associatedtype Part

    var output: AdminOutput { get }

    /// Asks servers, and hands out each part when it is known.
    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws
    /// A part as RocketMQ's tool prints it. Asks nothing.
    func lines(_ part: Part) -> [String]
    /// A part for programs, each value a line; none for parts that are mere headings.
    func json(_ part: Part) -> [JSONValue]
}

extension StreamingCommand {
    func execute(_ client: AdminClient) async throws {
        try await ask(client) { part in
            if output.isJSON {
                for value in json(part) { print(value.text(.standard)) }
            } else {
                for line in lines(part) { print(line) }
            }
        }
    }
}

/// `--json`, of all commands that show something.
struct AdminOutput: ParsableArguments {
    @Flag(name: .customLong("json"), help: "Print JSON for programs, with the keys named above.")
    var isJSON = false

    func show(json: () -> JSONValue, lines: () -> [String]) {
        if isJSON { print(json().text(.standard)) } else { for line in lines() { print(line) } }
    }

    /// The part of a command's help that names its keys.
    static func help(_ keys: String, after text: String = "") -> String {
        "\(text.isEmpty ? "" : "\(text)\n\n")JSON: \(keys)"
    }
}

/// The client library's failures as mqadmin's users read them, with what to type next.
enum AdminFailure {
    static func text(_ error: RocketMQClientError) -> String {
        switch error {
        case .noNameServer(_, let cause):
            "no name server answers: \(cause)\n"
                + "Say where one runs with -n HOST:PORT or in the environment variable NAMESRV_ADDR."
        case .topicNotFound(let topic, _):
            "topic '\(topic)' does not exist, and the brokers do not create topics by themselves"
        case .partlyDone(let done, let failed) where !done.isEmpty:
            "\(error)\nDo it again there: -n '\(failed.map(\.address).joined(separator: ";"))'"
        default: error.description
        }
    }
}
