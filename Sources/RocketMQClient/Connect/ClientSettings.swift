import Glibc
import LinuxSystem
package import NIOCore
import Synchronization

/// What a client of any kind needs to know.
public struct ClientSettings: Sendable {
    /// Name servers, each `host:port`. Routes are asked of the first that answers.
    public var nameServers: [String]
    /// How long one request may take; pulls add their waiting time to it.
    public var requestTimeout: Duration = .seconds(3)
    /// What brokers call this client; nil: made of this machine's address, the process ID, the time and a counter. It
    /// must be unique in a group: two members of one ID would share queues as one.
    public var clientID: String?
    /// What `consumerStatus` shows as the client's version.
    public var clientVersion = "swift"
    /// How long a route is used before name servers are asked again.
    package var routeLifetime = Duration.seconds(30)
    /// How long a route is kept that no name server knows any more. A restarted one knows none until the brokers have
    /// registered again, which those of RocketMQ do every 30 s.
    package var missingRouteLifetime = Duration.seconds(60)
    /// Where connections live; nil: on threads that all clients of the process share.
    package var eventLoopGroup: (any EventLoopGroup)?

    /// - Parameter nameServers: each `host:port`.
    public init(nameServers: [String]) { self.nameServers = nameServers }

    /// - Parameter nameServers: addresses separated by `;` or `,`, as in RocketMQ's `NAMESRV_ADDR`.
    public init(nameServers: String) {
        self.init(nameServers: nameServers.split { $0 == ";" || $0 == "," }.map(String.init))
    }

    /// - Throws: `invalidArgument` without a name server.
    func check() throws(RocketMQClientError) {
        guard !nameServers.isEmpty else {
            throw .invalidArgument("no name server is given: it has the form host:port, such as 127.0.0.1:9876")
        }
    }
}

/// Names of clients and times.
package enum ClientIdentity {
    private static let counter = Atomic<Int>(0)

    /// `ADDRESS@PID#MILLISECONDS#COUNTER`. Operators' tools show the part before `@` as the client's address.
    package static func make() -> String {
        let number = counter.wrappingAdd(1, ordering: .relaxed).newValue
        return "\(MachineAddress.firstIPv4() ?? "127.0.0.1")@\(getpid())#\(WallClock.milliseconds)#\(number)"
    }
}

/// The clock of timestamps.
package enum WallClock {
    /// Milliseconds since 1970.
    package static var milliseconds: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}

/// Message IDs in the shape of RocketMQ's client IDs: 32 hex digits, here 16 random ones for the process and a counter.
package final class UniqueKeys: Sendable {
    private let prefix = UniqueKeys.hex(UInt64.random(in: .min ... .max))
    private let counter = Atomic<UInt64>(0)

    package init() {}

    /// The next ID. Any thread.
    package func next() -> String { prefix + Self.hex(counter.wrappingAdd(1, ordering: .relaxed).newValue) }

    private static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16, uppercase: true)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
