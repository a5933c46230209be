import Glibc
import LinuxSystem
import Testing
import WorkerProtocol

@testable import Supervision

/// The gateway among the workers of a platform.
@Suite struct GatewaySettingsTests {
    private static let worker = WorkerID(.gateway, 0)

    private func configuration(
        _ change: (inout RawConfiguration, inout PlatformConfiguration.Surroundings) -> Void = { _, _ in }
    ) throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common["listenPort"] = "0"
        raw.nameserver["listenPort"] = "0"
        var surroundings = PlatformConfiguration.Surroundings(
            dataDirectory: "/data", executables: "/x", machineAddress: "192.0.2.1")
        change(&raw, &surroundings)
        return try PlatformConfiguration(raw, surroundings)
    }

    @Test func itListensOnTheLoopbackAddressWhateverBrokersDo() throws {
        var platform = try configuration { raw, _ in
            raw.common["bindAddress"] = "0.0.0.0"
            raw.nameserver["listenPort"] = "9876"
        }
        platform.introduceNameserver()
        let gateway = platform.settings(of: Self.worker)
        #expect(gateway["bindAddress"] == "127.0.0.1" && gateway["listenPort"] == "8080")
        #expect(gateway["namesrvAddr"] == "127.0.0.1:9876")
        #expect(platform.consoleAddress == "http://127.0.0.1:8080")
    }

    @Test func itServesOtherNameServersWhenItsTableSaysSo() throws {
        var own = try configuration { raw, _ in raw.gateway = ["namesrvAddr": "far:9876"] }
        own.introduceNameserver()
        #expect(own.settings(of: Self.worker)["namesrvAddr"] == "far:9876")
        let far = try configuration { raw, surroundings in
            surroundings.withNameserver = false
            raw.nameserver = [:]
            raw.common["namesrvAddr"] = "far:9876;further:9876"
        }
        #expect(far.settings(of: Self.worker)["namesrvAddr"] == "far:9876;further:9876")
    }

    @Test func beyondTheLoopbackAddressItNeedsAToken() throws {
        let refusal = #expect(throws: ConfigurationError.self) {
            try configuration { raw, _ in raw.gateway = ["bindAddress": "0.0.0.0"] }
        }
        #expect(refusal?.description.contains("accessTokens") == true)
        let open = try configuration { raw, _ in
            raw.gateway = ["bindAddress": "0.0.0.0", "accessTokens": "0123456789abcdef"]
        }
        #expect(open.consoleAddress == "http://192.0.2.1:8080")
        // `apus config show` may be read over a shoulder.
        #expect(open.listing.contains("accessTokens=(set, not shown)") && !open.listing.contains("0123456789abcdef"))
    }

    @Test func aPlatformMayBeWithoutIt() throws {
        #expect(try configuration { _, surroundings in surroundings.withGateway = false }.consoleAddress == nil)
        #expect(try configuration { raw, _ in raw.absent = ["gateway"] }.gateway == nil)
        // A name server alone has none, unless it is asked for.
        #expect(
            try configuration { raw, _ in
                raw.absent = ["broker"]; raw.common = [:]
            }.gateway == nil)
        #expect(
            try configuration { raw, _ in
                raw.absent = ["broker"]
                raw.common = [:]
                raw.gateway = ["listenPort": "0"]
            }.gateway != nil)
    }

    @Test func aTakenPortIsSaidAndNotFatal() throws {
        let taken = SharedDescriptor(try ListenSocket.tcp(address: "127.0.0.1", port: 0))
        let port = try ListenSocket.port(of: taken.raw)
        var platform = try configuration { raw, _ in raw.gateway = ["listenPort": "\(port)"] }
        let trial = PlatformTrial().portProblems(platform, RawConfiguration())
        #expect(trial.isEmpty, "it does not keep the platform from starting")
        let resources = try Resources(&platform, activated: [])
        #expect(resources.omitted.count == 1)
        #expect(resources.omitted[0].contains("without its gateway: port \(port) is in use"))
        #expect(resources.omitted[0].contains("--console-port"))
        #expect(platform.consoleAddress == nil && !platform.workers.contains(Self.worker))
        #expect(platform.workers.contains(WorkerID(.brokerStore, 0)))
    }
}
