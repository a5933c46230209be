import LinuxSystem
import WorkerProtocol

/// What systemd passed to this process at its start. Some are sockets of socket units, which the operator chose. The
/// others an earlier process of the platform kept in systemd's descriptor store; their names tell.
struct GivenDescriptors {
    /// Nothing else systemd passes is called so.
    private static let keptPrefix = "k-"

    private var sockets: [(name: String, socket: SharedDescriptor)] = []
    private var kept: [String: [SharedDescriptor]] = [:]

    /// Owns the descriptors from now on.
    init(_ given: [(name: String, fd: Int32)]) {
        for (name, fd) in given {
            let descriptor = SharedDescriptor(Descriptor(owning: fd))
            if name.hasPrefix(GivenDescriptors.keptPrefix) {
                kept[name, default: []].append(descriptor)
            } else {
                sockets.append((name, descriptor))
            }
        }
    }

    // MARK: - Names in the store

    /// `owner`: the worker; `name`: as the worker asks for it.
    static func listenerName(owner: String, _ name: String) -> String { "\(keptPrefix)listener-\(owner)-\(name)" }

    /// - Parameter kind: the short name of the worker's kind.
    static func connectionsName(_ kind: String, _ index: Int) -> String { "\(keptPrefix)\(kind)\(index)" }

    /// - Parameters:
    ///   - owner: the worker that writes it.
    ///   - layout: see `WorkerTable.segmentLayout`.
    ///   - subject: what its contents are about. A segment of another layout or about another store is never found.
    static func segmentName(_ name: String, owner: String, layout: Int, subject: String) -> String {
        // FNV-1a: the same in every process, unlike Swift's own hashes.
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in subject.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return "\(keptPrefix)segment-\(layout)-\(owner)-\(name)-\(String(hash, radix: 16))"
    }

    // MARK: - Taking

    /// A socket unit's socket with this FileDescriptorName=, or else one on that port (0: no port is known).
    mutating func takeSocket(name: String, port: Int) -> SharedDescriptor? {
        let index =
            sockets.firstIndex { $0.name == name }
            ?? sockets.firstIndex { port != 0 && (try? ListenSocket.port(of: $0.socket.raw)) == port }
        return index.map { sockets.remove(at: $0).socket }
    }

    /// What the store has under `name`: one, unless something went wrong; it stays in the store.
    mutating func takeKept(_ name: String) -> [SharedDescriptor]? { kept.removeValue(forKey: name) }

    // MARK: - What is left over

    /// The names of what the store keeps and no worker took.
    var stale: [String] { kept.keys.sorted() }

    /// Sockets of socket units that no worker has a use for, as text.
    var unused: [String] { sockets.map { "\($0.name) (\(ListenSocket.description(of: $0.socket.raw)))" }.sorted() }
}
