/// What a platform says of itself: the answer to the admin socket's `status`, which `apus status --json` prints.
package struct PlatformReport: Decodable, Sendable {
    package struct Worker: Decodable, Sendable {
        package var kind: String
        package var index: Int
        package var pid: Int32
        package var state: String
        package var restarts: Int
        package var status: String
        /// What keeps it from doing all its work; empty when it serves.
        package var trouble: String
        package var lastFailure: String

        /// As in the journal: `broker-store-0`.
        package var name: String { "\(kind)-\(index)" }
    }

    package var state: String
    package var uptimeMillis: Int64?
    package var statusLine: String
    package var brokers: [String]
    package var workers: [Worker]

    /// - Parameter name: `broker-store-0`.
    package subscript(name: String) -> Worker? { workers.first { $0.name == name } }

    /// By the workers' names.
    package var pids: [String: Int32] { Dictionary(workers.map { ($0.name, $0.pid) }, uniquingKeysWith: { $1 }) }
}
