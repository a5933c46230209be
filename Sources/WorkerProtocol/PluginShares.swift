/// Which worker for plugins has which plugin file, by the file's name. The supervisor decides. A file keeps its worker
/// while others come and go, so that no other plugin's consumers wait for a plugin to be loaded anew.
package struct PluginShares: Hashable, Sendable {
    /// The setting filter workers read it from.
    package static let setting = "filterShares"
    /// Bytes of the text at most: a worker's settings are one datagram.
    static let textBytesMax = 16 * 1024

    /// The number of a file's worker, counted from 0 among those for plugins.
    package private(set) var workers: [String: Int] = [:]

    package init() {}

    /// Reads what `text` wrote; what is none is left out.
    package init(_ text: String) {
        // No file's name has a slash.
        let parts = text.split(separator: "/")
        for pair in stride(from: 0, to: parts.count - 1, by: 2) {
            if let number = Int(parts[pair]), number >= 0 { workers[String(parts[pair + 1])] = number }
        }
    }

    /// Sorted by name, so that it changes only with its contents.
    package var text: String {
        workers.sorted { $0.key < $1.key }.map { "\($0.value)/\($0.key)" }.joined(separator: "/")
    }

    /// The files there are now: those that stay keep their workers, each new one gets a worker that has fewest.
    /// - Parameter count: workers for plugins.
    /// - Returns: the names that do not fit.
    package mutating func share(_ names: some Sequence<String>, among count: Int) -> [String] {
        let present = Set(names)
        workers = workers.filter { present.contains($0.key) && $0.value < count }
        guard count > 0 else { return [] }
        var loads = [Int](repeating: 0, count: count)
        for number in workers.values { loads[number] += 1 }
        var bytes = workers.keys.reduce(0) { $0 + $1.utf8.count + Self.bytesBeside }
        var omitted: [String] = []
        for name in present.subtracting(workers.keys).sorted() {
            bytes += name.utf8.count + Self.bytesBeside
            guard bytes <= Self.textBytesMax, let number = loads.indices.min(by: { loads[$0] < loads[$1] }) else {
                omitted.append(name)
                continue
            }
            workers[name] = number
            loads[number] += 1
        }
        return omitted
    }

    /// A number and two slashes.
    private static let bytesBeside = 6

    /// The files of one worker.
    package func files(of worker: Int) -> Set<String> { Set(workers.filter { $0.value == worker }.keys) }
}
