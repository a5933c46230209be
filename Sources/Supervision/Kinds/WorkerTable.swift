package import WorkerProtocol

/// The platform as a table: one row for each kind of worker, in launch order. Compared by identity.
package final class WorkerTable: Sendable, Hashable {
    /// In launch order.
    package let rows: [WorkerRow]

    /// What the slots of the segments mean. Raised with any change of it. Then a new version of the platform does not
    /// take over the segments that systemd kept of the old one.
    package static let segmentLayout = 1

    /// - Parameter rows: kinds, their short names and their tables occur once each.
    package init(_ rows: [WorkerRow]) {
        precondition(Set(rows.map(\.kind)).count == rows.count, "two rows of one kind")
        precondition(Set(rows.map(\.shortName)).count == rows.count, "two kinds with one short name")
        let tables = rows.compactMap(\.table)
        precondition(Set(tables).count == tables.count, "two kinds with one table of settings")
        for row in rows {
            if case .configured = row.count {
                precondition(row.listeners.isEmpty, "\(row.kind.rawValue): several workers cannot listen on one port")
            }
        }
        self.rows = rows
    }

    /// Of a kind that workers of the platform have.
    package func row(_ kind: WorkerKind) -> WorkerRow {
        guard let row = rows.first(where: { $0.kind == kind }) else {
            preconditionFailure("no row for \(kind.rawValue)")
        }
        return row
    }

    /// The kind of that name; nil: there is none.
    package func kind(named name: String) -> WorkerKind? { rows.first { $0.kind.rawValue == name }?.kind }

    /// The row whose table of settings is called so.
    package func row(table: String) -> WorkerRow? { rows.first { $0.table == table } }

    /// Tables of apus.toml that hold settings of one kind, `[[broker]]` not among them.
    package var tables: [String] { rows.filter { $0.count != .perBroker }.compactMap(\.table) }

    /// By the order of the rows, then by number: how workers are launched and shown.
    package func isBefore(_ a: WorkerID, _ b: WorkerID) -> Bool {
        (position(a.kind), a.index) < (position(b.kind), b.index)
    }

    private func position(_ kind: WorkerKind) -> Int { rows.firstIndex { $0.kind == kind } ?? rows.count }

    /// All pairs of `workers` that talk to each other.
    package func pairs(among workers: [WorkerID]) -> [WorkerPair] {
        workers.flatMap { a in
            row(a.kind).peers.flatMap { rule in
                workers.filter { b in
                    switch rule {
                    case .sameIndex(let kind): b.kind == kind && b.index == a.index
                    case .all(let kind): b.kind == kind
                    case .others: b.kind == a.kind && b.index > a.index
                    }
                }.map { WorkerPair(a: a, b: $0) }
            }
        }
    }

    package static func == (a: WorkerTable, b: WorkerTable) -> Bool { a === b }

    package func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}

/// Two workers with a peer link between them.
package struct WorkerPair: Hashable, Sendable {
    /// The worker whose row names the link.
    package var a: WorkerID
    /// The worker on its other end.
    package var b: WorkerID

    package init(a: WorkerID, b: WorkerID) {
        self.a = a
        self.b = b
    }

    /// The other end; nil: `worker` is none of the two.
    package func other(than worker: WorkerID) -> WorkerID? { worker == a ? b : worker == b ? a : nil }
}
