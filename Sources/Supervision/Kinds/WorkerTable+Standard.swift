import SettingTable
import WorkerProtocol

extension WorkerTable {
    /// Bytes of a shared segment unless its row has another size: one page, 512 slots.
    private static let page = 4096

    /// The platform that ships.
    package static let standard = WorkerTable([
        WorkerRow(
            kind: .nameserver, shortName: "n", title: "name server", count: .one,
            table: "nameserver", isOptional: true, readers: .nameserver,
            defaults: {
                [
                    "listenPort": String(PlatformConfiguration.nameserverPort),
                    "kvConfigPath": "\($0.dataDirectory)/config/kvConfig.json",
                ]
            },
            rules: NameserverSettings.self,
            critical: true, refusesStart: true,
            listeners: [
                .init(
                    name: "remoting", portKey: "listenPort", socketUnitName: "nameserver", option: "--nameserver-port")
            ],
            startMillisecondsMax: 30_000, drainMillisecondsMax: 5_000, drainStage: 3),
        WorkerRow(
            kind: .brokerStore, shortName: "b", title: "broker", nameKey: "brokerName", count: .perBroker,
            table: "broker", isOptional: true, readers: .broker, readsCommonSettings: true,
            rules: BrokerSettings.self, checksSettings: true,
            critical: true, refusesStart: true,
            listeners: [
                // Clients derive the VIP port from the port, and slaves' operators the HA port.
                .init(
                    name: "remoting", portKey: "listenPort", socketUnitName: "broker", option: "--broker-port",
                    neighbours: [
                        .init(portKey: "fastListenPort", offset: -2), .init(portKey: "haListenPort", offset: 1),
                    ]),
                .init(
                    name: "vip", portKey: "fastListenPort", socketUnitName: "broker-vip", option: "--broker-port"),
            ],
            segments: [.writes("watermarks", bytes: page), .reads("replication", of: .replication)],
            events: [.init("watermarks", of: .brokerStore), .init("replication", of: .replication)],
            peers: [.sameIndex(.replication), .all(.filter), .others], ownsDisk: true,
            // Recovery reads the end of the commit log again, on a slow disk for minutes.
            startMillisecondsMax: 600_000, drainMillisecondsMax: 60_000, drainStage: 1),
        WorkerRow(
            kind: .replication, shortName: "r", title: "replication worker", count: .perBroker,
            settingsOf: .brokerStore,
            critical: false, refusesStart: false,
            listeners: [
                .init(name: "ha", portKey: "haListenPort", socketUnitName: "broker-ha", option: "--broker-port")
            ],
            segments: [.reads("watermarks", of: .brokerStore), .writes("replication", bytes: page)],
            events: [.init("watermarks", of: .brokerStore), .init("replication", of: .replication)],
            sharesDiskOf: .brokerStore,
            startMillisecondsMax: 30_000, drainMillisecondsMax: 10_000, drainStage: 2),
        WorkerRow(
            kind: .filter, shortName: "f", title: "filter worker", count: .configured(default: 1),
            table: "filter", readers: .filter, readsCommonSettings: true, rules: FilterSettings.self,
            critical: false, refusesStart: true,
            // What plugins did to earlier filter workers is kept in a segment of the worker, which the others read.
            segments: [
                .writes("plugins", bytes: page), .readsAll("watermarks", of: .brokerStore),
                .readsAll("plugins", of: .filter),
            ],
            memoryLimit: .worker(setting: "filterMemoryMegabytes"),
            startMillisecondsMax: 30_000, drainMillisecondsMax: 5_000, drainStage: 2),
        WorkerRow(
            kind: .gateway, shortName: "g", title: "gateway", count: .one,
            table: "gateway", isOptional: true, readers: .gateway,
            defaults: { _ in ["listenPort": String(PlatformConfiguration.gatewayPort)] },
            rules: GatewaySettings.self, checksSettings: true,
            critical: false, refusesStart: true, startsWithoutPort: true,
            listeners: [
                .init(name: "http", portKey: "listenPort", socketUnitName: "gateway", option: "--console-port")
            ],
            // Before the brokers: what its clients have sent is still answered.
            startMillisecondsMax: 30_000, drainMillisecondsMax: 10_000, drainStage: 0),
    ])
}
