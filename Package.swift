// swift-tools-version: 6.2
import PackageDescription

// The house rules of Sources/README.md, machine-checked by Tests/TidyTests: a room imports only the
// rooms its row names. This file must say the same.

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    // Debug builds, and with them all unit tests, check every access; on the path of a message the checks cost 13 % of
    // a pipelined send and 18 % of a batched one (Tests/Scripts/measure: 1.77 to 1.54 and 0.56 to 0.46 µs a message).
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

/// For the supervisor and the command line: optimizing them is a fifth of the first build's work (261 s to 210 s on two
/// cores), and no message of a broker passes them. `apus consume` takes 2.5 instead of 2.0 µs of CPU a message; the
/// clients behind it and `apus bench` are modules of their own, optimized. Assertions are as in release builds.
let unoptimized: [SwiftSetting] =
    strict + [.unsafeFlags(["-Onone", "-assert-config", "Release"], .when(configuration: .release))]

let strictC: [CSetting] = [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]

let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
// Its engine of HTTP/1.1 alone: the router, TLS and HTTP/2 come with several times the code to build.
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")

func room(
    _ name: String, _ dependencies: [Target.Dependency] = [], path: String? = nil, exclude: [String] = [],
    settings: [SwiftSetting] = strict
) -> Target {
    .target(name: name, dependencies: dependencies, path: path, exclude: exclude, swiftSettings: settings)
}

/// A plugin carries its own Swift runtime in release builds: it is then the only thing to install, on machines
/// without Swift too, and the filter worker does not map a second, dynamic runtime beside its static one.
func plugin(_ name: String) -> Target {
    .target(
        name: name, dependencies: ["CFilterPlugin"], path: "plugins/\(name)", swiftSettings: strict,
        linkerSettings: [.unsafeFlags(["-static-stdlib"], .when(configuration: .release))])
}

func worker(
    _ name: String, _ dependencies: [Target.Dependency], settings: [SwiftSetting] = strict
) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

let package = Package(
    name: "apus",
    products: [
        .executable(name: "apusd", targets: ["apusd"]),
        .executable(name: "apus-nameserver", targets: ["apus-nameserver"]),
        .executable(name: "apus-broker-store", targets: ["apus-broker-store"]),
        .executable(name: "apus-replication", targets: ["apus-replication"]),
        .executable(name: "apus-filter", targets: ["apus-filter"]),
        .executable(name: "apus-gateway", targets: ["apus-gateway"]),
        .executable(name: "apus", targets: ["apus"]),
        .library(name: "RocketMQClient", targets: ["RocketMQClient"]),
        .library(name: "ApusTagFilter", type: .dynamic, targets: ["TagFilter"]),
        .library(name: "ApusSQL92Filter", type: .dynamic, targets: ["SQL92Filter"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0", traits: []),
    ],
    targets: [
        // Floor 0: C
        .target(name: "CLinux", cSettings: strictC),
        .systemLibrary(name: "CSystemd", pkgConfig: "libsystemd", providers: [.apt(["libsystemd-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .target(name: "CFilterPlugin", path: "plugins/CFilterPlugin", cSettings: strictC),

        // Floor 1: ground
        room("LinuxSystem", ["CLinux"]),
        room("Systemd", ["CSystemd", "LinuxSystem", logging]),

        // Floor 2: words and formats
        room("FastJSON"),
        room("MessageModel"),
        room("StoreFormat", ["CLinux", "MessageModel"]),
        room("SettingTable", ["FastJSON", "MessageModel"], exclude: ["README.md"]),
        room("WorkerProtocol", ["SettingTable"]),
        room("RemotingProtocol", ["FastJSON", "MessageModel", "CZlib", nioCore]),

        // Floor 3: equipment
        room("StoreReader", ["LinuxSystem", "StoreFormat"]),
        room("MetadataStore", ["LinuxSystem", "StoreFormat"]),
        room(
            "RemotingTransport", ["LinuxSystem", "MessageModel", "RemotingProtocol", logging, nioCore, nioPosix]),
        room("WorkerKit", ["LinuxSystem", "SettingTable", "Systemd", "WorkerProtocol", logging, nioCore, nioPosix]),

        // Floor 4: engines
        room(
            "MessageStore",
            [
                "LinuxSystem", "FastJSON", "MessageModel", "SettingTable", "StoreFormat", "StoreReader",
                "MetadataStore", logging,
            ],
            exclude: ["README.md"]),
        room("Claims", ["LinuxSystem", "MessageModel", "StoreFormat", logging], exclude: ["README.md"]),
        room(
            "BrokerService",
            [
                "FastJSON", "LinuxSystem", "MessageModel", "RemotingProtocol", "SettingTable", "StoreFormat",
                "WorkerProtocol", "StoreReader", "MetadataStore", "RemotingTransport", "MessageStore", "Claims",
                logging,
                nioCore, nioPosix,
            ], exclude: ["README.md"]),
        room(
            "RouteRegistry",
            ["FastJSON", "MessageModel", "RemotingProtocol", "RemotingTransport", "SettingTable", logging, nioCore],
            exclude: ["README.md"]),
        room(
            "Replication",
            [
                "LinuxSystem", "FastJSON", "StoreFormat", "WorkerProtocol", "StoreReader", "RemotingProtocol",
                "RemotingTransport", logging, nioCore, nioPosix,
            ]),
        room(
            "FilterEngine",
            ["CFilterPlugin", "CLinux", "LinuxSystem", "StoreFormat", "WorkerProtocol", "StoreReader", logging]),
        room(
            "Supervision", ["LinuxSystem", "SettingTable", "Systemd", "WorkerProtocol", logging],
            exclude: ["README.md"],
            settings: unoptimized),
        room(
            "RocketMQClient",
            [
                "FastJSON", "LinuxSystem", "MessageModel", "RemotingProtocol", "RemotingTransport", nioCore, nioPosix,
            ], exclude: ["README.md"]),
        room(
            "Gateway", ["FastJSON", "MessageModel", "RemotingProtocol", "RocketMQClient", "SettingTable", nioCore],
            exclude: ["README.md"]),

        // Floor 5: workers and the command line
        worker(
            "apusd",
            [
                "Supervision", "LinuxSystem", "Systemd", "WorkerProtocol", logging, argumentParser,
                .product(name: "TOMLKit", package: "TOMLKit"),
            ], settings: unoptimized
        ),
        worker(
            "apus-nameserver",
            [
                "RouteRegistry", "FastJSON", "LinuxSystem", "MetadataStore", "WorkerKit", "WorkerProtocol",
                "RemotingTransport", logging, nioCore, nioPosix,
            ]),
        worker(
            "apus-broker-store",
            [
                "BrokerService", "MessageStore", "SettingTable", "StoreFormat", "WorkerKit", "WorkerProtocol",
                "RemotingTransport", "LinuxSystem", logging, nioCore, nioPosix,
            ]),
        worker(
            "apus-replication",
            [
                "Replication", "RemotingTransport", "LinuxSystem", "WorkerKit", "WorkerProtocol", logging, nioCore,
                nioPosix,
            ]),
        worker(
            "apus-filter",
            ["FastJSON", "FilterEngine", "LinuxSystem", "WorkerKit", "WorkerProtocol", logging, nioCore, nioPosix]),
        worker(
            "apus-gateway",
            [
                "Gateway", "LinuxSystem", "RemotingTransport", "RocketMQClient", "SettingTable", "WorkerKit",
                "WorkerProtocol", httpTypes, hummingbirdCore, logging, nioCore, nioPosix,
            ]),
        worker(
            "apus",
            [
                "Bench", "BrokerService", "FastJSON", "FilterEngine", "LinuxSystem", "MessageModel", "RocketMQClient",
                "SettingTable", "Supervision", "WorkerProtocol", logging, argumentParser,
            ], settings: unoptimized),
        room("Bench", ["CLinux", "FastJSON", "MessageModel", histogram]),

        // Plugins
        plugin("TagFilter"),
        plugin("SQL92Filter"),
    ]
)

// What only tests and benchmarks use is left out of the README's first command: APUS_BUILD=platform swift build …
if Context.environment["APUS_BUILD"] != "platform" {
    package.targets += [
        tests("TidyTests", []),
        tests("MessageModelTests", ["MessageModel", "TestTools"]),
        tests("SettingTableTests", ["FastJSON", "SettingTable"]),
        tests("LinuxSystemTests", ["CLinux", "CZlib", "LinuxSystem"]),
        tests("WorkerProtocolTests", ["TestTools", "WorkerProtocol"]),
        tests("SystemdTests", ["Systemd", logging]),
        tests("WorkerKitTests", ["LinuxSystem", "WorkerKit", "WorkerProtocol", logging, nioCore, nioPosix]),
        tests(
            "SupervisionTests",
            [
                "EchoWorker", "LinuxSystem", "SettingTable", "Supervision", "Systemd", "TestFolders", "TestTools",
                "WorkerProtocol", "apusd", logging,
            ]),
        .executableTarget(
            name: "EchoWorker",
            dependencies: ["LinuxSystem", "WorkerKit", "WorkerProtocol", nioCore, nioPosix],
            path: "Tests/Support/EchoWorker", swiftSettings: strict),
        // What the page of RocketMQClient shows.
        .executableTarget(
            name: "SwiftClientExample", dependencies: ["RocketMQClient"], path: "Tests/Support/SwiftClientExample",
            swiftSettings: strict),
        .executableTarget(
            name: "CodecBenchmark", dependencies: ["MessageModel", "RemotingProtocol", nioCore],
            path: "Tests/Support/CodecBenchmark", swiftSettings: strict),
        tests("BenchTests", ["Bench", "RemotingProtocol", nioCore]),
        tests(
            "ApusTests",
            ["apus", "FastJSON", "RemotingProtocol", "RocketMQClient", "SettingTable", "Supervision", argumentParser]),
        tests(
            "RocketMQClientTests",
            [
                "FastJSON", "MessageModel", "RemotingProtocol", "RemotingTransport", "RocketMQClient", "TestTools",
                nioCore, nioPosix,
            ]),
        tests(
            "PlatformTests",
            [
                "FastJSON", "ModelClients", "RemotingProtocol", "RemotingTransport", "RocketMQClient", "StoreFormat",
                "StoreJudge", "SwiftClientExample", "TestTools", nioCore, nioPosix,
            ]),
        tests(
            "BrokerServiceTests",
            [
                "BrokerService", "FastJSON", "LinuxSystem", "MessageModel", "MessageStore", "MetadataStore",
                "RemotingProtocol",
                "RemotingTransport", "SettingTable", "StoreFormat", "StoreJudge", "TestFolders", "TestTools",
                "WorkerProtocol", logging,
                nioCore, nioPosix,
                nioEmbedded,
            ]),
        .executableTarget(
            name: "StoreBench", dependencies: ["MessageModel", "MessageStore", "StoreFormat", "LinuxSystem", logging],
            path: "Tests/Support/StoreBench", swiftSettings: strict),
        room(
            "ModelClients", ["RemotingProtocol", "RemotingTransport", "RocketMQClient", nioCore, nioPosix],
            path: "Tests/Support/ModelClients"),
        .executableTarget(
            name: "KindsBenchmark",
            dependencies: ["FastJSON", "ModelClients", "RemotingProtocol", "RemotingTransport", nioCore, nioPosix],
            path: "Tests/Support/KindsBenchmark", swiftSettings: strict),
        // A seeded generator, a logger that keeps what was said, waiting for what a test means.
        .target(
            name: "TestTools", dependencies: [logging], path: "Tests/Support/TestTools", swiftSettings: strict),
        .executableTarget(
            name: "ClaimsBench", dependencies: ["Claims", "LinuxSystem", "MessageModel", logging],
            path: "Tests/Support/ClaimsBench", swiftSettings: strict),
        // A disk in memory that forgets what was not synchronized.
        room("TestDisk", ["LinuxSystem"], path: "Tests/Support/TestDisk"),
        .target(name: "TestFolders", path: "Tests/Support/TestFolders", swiftSettings: strict),
        // Reads stores with none of their code: it must depend on no room. Optimized, for it looks at every byte.
        .target(
            name: "StoreJudge", path: "Tests/Support/StoreJudge", swiftSettings: strict + [.unsafeFlags(["-O"])]),
        tests("StoreFormatTests", ["StoreFormat", "TestTools"]),
        tests("StoreReaderTests", ["LinuxSystem", "StoreFormat", "StoreReader", "TestFolders"]),
        tests("MetadataStoreTests", ["LinuxSystem", "MetadataStore", "TestDisk"]),
        tests(
            "MessageStoreTests",
            [
                "MessageModel", "MessageStore", "MetadataStore", "StoreFormat", "StoreJudge", "StoreReader",
                "LinuxSystem", "TestDisk", logging,
            ]),
        tests("ClaimsTests", ["Claims", "LinuxSystem", "MessageModel", "TestDisk", "TestTools", logging]),
        tests("GatewayTests", ["FastJSON", "Gateway", "RocketMQClient"]),
        tests("FastJSONTests", ["FastJSON", "TestTools"]),
        tests(
            "RemotingProtocolTests", ["RemotingProtocol", "FastJSON", "TestTools", nioCore],
            resources: [.copy("Fixtures")]),
        tests(
            "RemotingTransportTests",
            ["RemotingTransport", "RemotingProtocol", "TestTools", logging, nioCore, nioPosix]),
        tests(
            "RouteRegistryTests",
            [
                "RouteRegistry", "RemotingTransport", "RemotingProtocol", "SettingTable", "FastJSON", "TestTools",
                logging,
                nioCore, nioPosix,
            ],
            resources: [.copy("Fixtures")]),
        tests(
            "ReplicationTests",
            [
                "Replication", "LinuxSystem", "MessageModel", "TestFolders", "TestTools", "WorkerKit", "WorkerProtocol",
                "RemotingProtocol", "RemotingTransport", logging, nioCore, nioPosix,
            ]),
        tests(
            "FilterEngineTests",
            [
                "FilterEngine", "CFilterPlugin", "LinuxSystem", "StoreFormat", "StoreReader", "TestFolders",
                "TestTools",
                logging,
            ]),
    ]
}

// A sanitizer's run builds some modules' tests and what these need, nothing else (Tests/Scripts/sanitizers):
// APUS_TESTS=FastJSON,StoreFormat swift build --build-tests …
if let chosen = Context.environment["APUS_TESTS"] {
    let targets = Dictionary(uniqueKeysWithValues: package.targets.map { ($0.name, $0) })
    var needed: Set<String> = []
    var next = chosen.split(separator: ",").map { "\($0)Tests" }
    while let name = next.popLast() {
        guard let target = targets[name], needed.insert(name).inserted else { continue }
        next += target.dependencies.compactMap { dependency in
            if case .byNameItem(let name, _) = dependency { name } else { nil }
        }
    }
    package.targets.removeAll { !needed.contains($0.name) }
    package.products = []
}
