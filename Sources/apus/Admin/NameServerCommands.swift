import ArgumentParser
import FastJSON
import RocketMQClient

struct GetNamesrvConfig: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "getNamesrvConfig", abstract: "Show the settings of the name servers.",
        discussion: AdminOutput.help("an object: the server's address, and its settings by name."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput

    struct Server {
        let address: String
        let settings: [(name: String, value: String)]
    }

    func ask(_ client: AdminClient) async throws -> [Server] {
        var all: [Server] = []
        for address in client.nameServers {
            all.append(Server(address: address, settings: try await client.nameServerSettings(of: address)))
        }
        return all
    }

    func lines(_ value: [Server]) -> [String] {
        value.flatMap { ["============\($0.address)============"] + propertyLines($0.settings) }
    }

    func json(_ value: [Server]) -> JSONValue {
        .fields(value.map { ($0.address, settingsJSON($0.settings)) })
    }
}

struct UpdateNamesrvConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateNamesrvConfig", abstract: "Change a setting of the running name servers.",
        discussion: """
            The change holds at once and over restarts, until the configuration file says something else.
            """)

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("k"), .customLong("key")], parsing: .unconditional, help: "The setting.") var key:
        String
    @Option(name: [.customShort("v"), .customLong("value")], parsing: .unconditional, help: "Its new value.") var value:
        String

    func execute(_ client: AdminClient) async throws {
        try await client.setNameServerSetting(key, to: value)
        print("update name server config success![\(client.nameServers.joined(separator: ", "))]\n\(key) : \(value)")
    }
}

struct UpdateKvConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateKvConfig", abstract: "Set a value in the name servers' key-value tables.")

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("s"), .customLong("namespace")], parsing: .unconditional, help: "Namespace.")
    var namespace: String
    @Option(name: [.customShort("k"), .customLong("key")], parsing: .unconditional, help: "Key.") var key: String
    @Option(name: [.customShort("v"), .customLong("value")], parsing: .unconditional, help: "Value.") var value: String

    func execute(_ client: AdminClient) async throws {
        try await client.setValue(value, of: key, namespace: namespace)
        print("create or update kv config to namespace success.")
    }
}

struct DeleteKvConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "deleteKvConfig", abstract: "Delete a value from the name servers' key-value tables.")

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("s"), .customLong("namespace")], parsing: .unconditional, help: "Namespace.")
    var namespace: String
    @Option(name: [.customShort("k"), .customLong("key")], parsing: .unconditional, help: "Key.") var key: String

    func execute(_ client: AdminClient) async throws {
        try await client.deleteValue(of: key, namespace: namespace)
        print("delete kv config from namespace success.")
    }
}

/// Writing to a broker's topics is allowed or not, in every name server given with -n.
protocol WritePermissionCommand: AdminCommand {
    static var isWritable: Bool { get }
    /// As the command's lines have it.
    static var verb: String { get }
    var brokerName: String { get }
}

extension WritePermissionCommand {
    func execute(_ client: AdminClient) async throws {
        var hasFailed = false
        for address in client.nameServers {
            let subject = "\(Self.verb) write perm of broker[\(brokerName)] in name server[\(address)]"
            do {
                let count = try await client.setWritable(Self.isWritable, broker: brokerName, at: address)
                print("\(subject) OK, \(count)")
            } catch {
                hasFailed = true
                print("\(subject) Failed")
                writeToStandardError("\(error)\n")
            }
        }
        if hasFailed { throw ExitCode(1) }
    }
}

struct WipeWritePerm: WritePermissionCommand {
    static let configuration = CommandConfiguration(
        commandName: "wipeWritePerm", abstract: "Take a broker's topics out of clients' sending routes.")
    static let isWritable = false
    static let verb = "wipe"

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var brokerName: String
}

struct AddWritePerm: WritePermissionCommand {
    static let configuration = CommandConfiguration(
        commandName: "addWritePerm", abstract: "Put a broker's topics back into clients' sending routes.")
    static let isWritable = true
    static let verb = "add"

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var brokerName: String
}
