/// A kind of worker processes, by its name: `broker-store`. The executable of a kind is `apus-NAME`.
///
/// What the supervisor knows of a kind is its row in `Supervision/Kinds/WorkerTable`. Kinds named here are those that
/// other programs name, for their links.
package struct WorkerKind: RawRepresentable, Hashable, Sendable {
    /// Bytes of a name at most.
    static let bytesMax = 64

    /// The name: 1 to 64 bytes.
    package let rawValue: String

    /// - Parameter rawValue: 1 to 64 bytes.
    package init(rawValue: String) { self.rawValue = rawValue }

    /// `apus-nameserver`.
    package static let nameserver = WorkerKind(rawValue: "nameserver")
    /// `apus-broker-store`.
    package static let brokerStore = WorkerKind(rawValue: "broker-store")
    /// `apus-replication`.
    package static let replication = WorkerKind(rawValue: "replication")
    /// `apus-filter`.
    package static let filter = WorkerKind(rawValue: "filter")
    /// `apus-gateway`.
    package static let gateway = WorkerKind(rawValue: "gateway")
}

/// One worker process of the platform; it keeps its identity over restarts.
package struct WorkerID: Hashable, Sendable, CustomStringConvertible {
    /// Its program and its row.
    package var kind: WorkerKind
    /// Counts from 0 within the kind.
    package var index: Int

    package init(_ kind: WorkerKind, _ index: Int) {
        self.kind = kind
        self.index = index
    }

    package var description: String { "\(kind.rawValue)-\(index)" }

    /// A shared segment of this worker as another worker finds it: `watermarks@broker-store-0`.
    package func segment(_ name: String) -> String { "\(name)@\(self)" }
}
