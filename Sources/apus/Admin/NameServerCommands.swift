import ArgumentParser
import RemotingProtocol

struct GetNamesrvConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "getNamesrvConfig", abstract: "Show the settings of the name servers.")

    @OptionGroup var server: NameServerOption

    func execute(_ session: AdminSession) async throws {
        for address in session.nameServers {
            let reply = try await session.demand(address, .getNamesrvConfig)
            print("============\(address)============")
            showProperties(reply.body)
        }
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

    func execute(_ session: AdminSession) async throws {
        try await session.everyNameServer { address in
            _ = try await session.demand(address, .updateNamesrvConfig, body: Array("\(key)=\(value)\n".utf8))
        }
        print("update name server config success![\(session.nameServers.joined(separator: ", "))]\n\(key) : \(value)")
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

    func execute(_ session: AdminSession) async throws {
        try await session.everyNameServer { address in
            _ = try await session.demand(
                address, .putKVConfig, ["namespace": namespace, "key": key, "value": value])
        }
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

    func execute(_ session: AdminSession) async throws {
        try await session.everyNameServer { address in
            _ = try await session.demand(address, .deleteKVConfig, ["namespace": namespace, "key": key])
        }
        print("delete kv config from namespace success.")
    }
}

/// Writing to a broker's topics is allowed or not, in every name server given with -n.
protocol WritePermissionCommand: AdminCommand {
    static var request: RequestCode { get }
    /// As the command's lines say it, and the field of the answer.
    static var verb: String { get }
    var brokerName: String { get }
}

extension WritePermissionCommand {
    func execute(_ session: AdminSession) async throws {
        var hasFailed = false
        for address in session.nameServers {
            let subject = "\(Self.verb) write perm of broker[\(brokerName)] in name server[\(address)]"
            do {
                let reply = try await session.demand(address, Self.request, ["brokerName": brokerName])
                print("\(subject) OK, \(try reply.field("\(Self.verb)TopicCount"))")
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
    static let request = RequestCode.wipeWritePermOfBroker
    static let verb = "wipe"

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var brokerName: String
}

struct AddWritePerm: WritePermissionCommand {
    static let configuration = CommandConfiguration(
        commandName: "addWritePerm", abstract: "Put a broker's topics back into clients' sending routes.")
    static let request = RequestCode.addWritePermOfBroker
    static let verb = "add"

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var brokerName: String
}
