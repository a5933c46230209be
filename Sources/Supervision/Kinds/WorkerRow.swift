package import SettingTable
package import WorkerProtocol

/// One kind of worker: everything the supervisor knows of it. A new kind is a row of `WorkerTable.standard` and its
/// program; no other file of this module names kinds.
package struct WorkerRow: Sendable {
    /// How many workers of the kind there are.
    package enum Count: Sendable, Hashable {
        /// One, unless the configuration does without it (`NAME = false`, see `isOptional`).
        case one
        /// As many as `count` in the kind's table.
        case configured(default: Int)
        /// One for each broker, with the broker's number. Comes and goes with the broker.
        case perBroker
    }

    /// Which workers a worker of this kind gets a peer link to.
    package enum PeerRule: Sendable {
        /// Number i to number i.
        case sameIndex(WorkerKind)
        case all(WorkerKind)
        /// Those of its own kind.
        case others
    }

    /// A shared memory segment a worker gets with `setup`. A segment belongs to the one worker that writes it.
    package enum SegmentUse: Sendable, Hashable {
        /// Its own, of so many bytes: slots of 8 bytes each.
        case writes(String, bytes: Int)
        /// That of the worker of `kind` with the same number, read-only.
        case reads(String, of: WorkerKind)
        /// Those of all workers of `kind`, read-only; also of workers that join later.
        case readsAll(String, of: WorkerKind)

        /// Whether the segments grow in number with the platform.
        var isOfAll: Bool { if case .readsAll = self { true } else { false } }
    }

    /// An eventfd a worker shares with the worker of `owner`, which signals it, of the same number.
    package struct EventUse: Sendable, Hashable {
        /// As the workers ask for it.
        package var name: String
        /// The kind that signals it.
        package var owner: WorkerKind

        package init(_ name: String, of owner: WorkerKind) {
            self.name = name
            self.owner = owner
        }
    }

    /// A listening socket the supervisor holds for a worker.
    package struct ListenerRow: Sendable, Hashable {
        /// As the worker asks for it.
        package var name: String
        /// The setting that holds its port. 0 there: any free one; absent: no such listener.
        package var portKey: String
        /// FileDescriptorName= of a socket unit that brings it (with `#1`, `#2`, … for further workers of the kind).
        package var socketUnitName: String
        /// The option of the command line that sets the port, or another that moves it.
        package var option: String
        /// When any free port is chosen for this listener, these must be free as well. They are settings of further
        /// ports, and how far above this port those lie. The ports are of the same worker, or of the one that reads the
        /// same settings.
        package var neighbours: [Neighbour] = []

        /// A port beside a listener's.
        package struct Neighbour: Sendable, Hashable {
            /// The setting that holds the further port.
            package var portKey: String
            /// How far it lies above the listener's port; below, when negative.
            package var offset: Int
        }
    }

    /// What keeps a worker below its limit of memory (`limits.KIND.memory`).
    package enum MemoryLimit: Sendable {
        /// The supervisor: by cgroup, else by a resource limit of the process.
        case supervisor
        /// Without a cgroup the worker itself, by this setting in MiB: it can report what took the memory.
        case worker(setting: String)
    }

    /// No other row has it.
    package var kind: WorkerKind
    /// One character for names that must be short; no other kind has it.
    package var shortName: String
    /// For people, without an article: `name server`.
    package var title: String
    /// The setting that holds a worker's own name for people, if it has one.
    package var nameKey: String?
    /// How many workers of the kind there are.
    package var count: Count

    /// Its table in apus.toml: `[TABLE]`, for `.perBroker` `[[TABLE]]`. nil: it has no settings of its own.
    package var table: String?
    /// `TABLE = false` takes the kind out of the platform.
    package var isOptional = false
    /// The settings workers of this kind read.
    package var readers: Setting.Readers = []
    /// Settings above all tables are its own, too.
    package var readsCommonSettings = false
    /// It reads the settings of the worker of that kind with its number.
    package var settingsOf: WorkerKind?
    /// Settings it has when the operator sets nothing.
    package var defaults: @Sendable (PlatformConfiguration.Surroundings) -> [String: String] = { _ in [:] }
    /// What a kind does with its settings besides; see `SettingsRules`.
    package var rules: any SettingsRules.Type = PlainSettings.self
    /// `apus config check` asks its program about the settings (`SettingsCheck`).
    package var checksSettings = false

    /// READY=1 and WATCHDOG=1 depend on it.
    package var critical: Bool
    /// A start in which all workers of the kind report why they cannot serve is given up.
    package var refusesStart: Bool
    /// When its port is taken, the platform starts without it, and says so. Its ports are no reason to refuse a start.
    package var startsWithoutPort = false
    /// Sockets it gets with `setup`.
    package var listeners: [ListenerRow] = []
    /// Shared memory it gets with `setup`.
    package var segments: [SegmentUse] = []
    /// Event descriptors it gets with `setup`.
    package var events: [EventUse] = []
    /// Links it gets; one side of a pair names it.
    package var peers: [PeerRule] = []
    /// It writes to the disk that the settings `diskPath` and `diskIdentity` name.
    package var ownsDisk = false
    /// Works on the disk of the worker of that kind with its number: while that one waits for its disk, so does this
    /// one.
    package var sharesDiskOf: WorkerKind?
    /// What keeps it below its limit of memory.
    package var memoryLimit = MemoryLimit.supervisor
    /// When it is launched again after a crash.
    package var restart = RestartRule()
    /// How long it may take from its launch to `ready`, in milliseconds.
    package var startMillisecondsMax: Int64
    /// How long it may drain before it is killed, in milliseconds.
    package var drainMillisecondsMax: Int64
    /// Stages are drained one after the other, from 0 on.
    package var drainStage: Int
}

/// When a worker that crashed is launched again. Times in milliseconds.
package struct RestartRule: Sendable, Hashable {
    /// The first restart comes at once; the delay before the second.
    package var delayMillisecondsMin: Int64 = 100
    /// Doubled from crash to crash up to this.
    package var delayMillisecondsMax: Int64 = 10_000
    /// Having been ready for so long makes the next crash a first one again.
    package var stableMilliseconds: Int64 = 2_000
    /// From so many crashes in a row it is called a crash loop.
    package var crashLoop = 3

    package init() {}

    /// The delay before the restart after `crashes` crashes in a row (at least 1).
    package func delayMilliseconds(crashes: Int) -> Int64 {
        guard crashes > 1 else { return 0 }
        return min(delayMillisecondsMin << Int64(min(crashes - 2, 20)), delayMillisecondsMax)
    }
}
