import CFilterPlugin
import Glibc
import LinuxSystem
import Logging
import WorkerProtocol

/// The operators' folders of plugins, looked at again and again. What is whole and new is loaded; what was removed or
/// changed asks for a fresh process. A file is whole when it was not touched for a moment and by its own headers
/// nothing is missing.
package final class PluginFolders {
    /// What one look has shown.
    package struct Look: Equatable {
        /// So many files were loaded or refused.
        package var new = 0
        /// A file this process has loaded was replaced or removed: only a fresh process can take that.
        package var stale: String?
        /// Something is on its way: look again soon.
        package var isPending = false
    }

    /// Which files are this process's.
    package struct Share {
        /// By the file's name.
        package var isMine: (_ name: String) -> Bool
        /// Whether it also takes plugins that filter workers have died of.
        package var takesRecorded: Bool

        package init(takesRecorded: Bool = true, isMine: @escaping (String) -> Bool = { _ in true }) {
            self.isMine = isMine
            self.takesRecorded = takesRecorded
        }
    }

    /// A file that changes is looked at after so many nanoseconds of peace.
    static let quiet: Int64 = 250_000_000
    /// A file that is not whole by its own headers is refused after so long.
    static let abandoned: Int64 = 2_000_000_000

    /// Files one process takes; a fresh process takes as many again.
    package static let filesMax = 64

    private enum State {
        case loaded(FilterPlugin)
        case refused
        /// Another process's, because of its record.
        case left
    }

    private struct Known {
        var identity: FrozenFile.Identity
        var file: PluginFile
        var state: State
    }

    private struct Pending {
        /// nil: the file was removed.
        var identity: FrozenFile.Identity?
        var since: Int64
    }

    /// Absolute paths.
    package let folders: [String]
    private let catalogue: FilterCatalogue
    private var known: [String: Known] = [:]
    private var pending: [String: Pending] = [:]
    private var mine: Set<String> = []
    private var unreadable: Set<String> = []

    package init(_ folders: [String], catalogue: FilterCatalogue) {
        self.folders = folders
        self.catalogue = catalogue
    }

    /// The plugin files of a folder, by their paths; built-in plugins are none.
    package static func files(in folder: String) -> [String]? {
        guard let stream = opendir(folder) else { return nil }
        defer { closedir(stream) }
        var found: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if PluginPlaces.isOperators(name) { found.append("\(folder)/\(name)") }
        }
        return found.sorted()
    }

    private func listed() -> [String] {
        folders.flatMap { folder -> [String] in
            if let files = Self.files(in: folder) {
                unreadable.remove(folder)
                return files
            }
            let error = errno
            if error != ENOENT, unreadable.insert(folder).inserted {
                catalogue.logger.error(
                    "plugin folder \(folder) cannot be read (\(SystemError.text(error))): no filter plugins from there")
            }
            return []
        }
    }

    /// - Parameters:
    ///   - now: nanoseconds of the monotonic clock.
    ///   - today: nanoseconds since 1970.
    package func look(
        _ share: Share = Share(), now: Int64 = PluginFolders.clock(CLOCK_MONOTONIC),
        today: Int64 = PluginFolders.clock(CLOCK_REALTIME)
    ) -> Look {
        var look = Look()
        let all = listed()
        mine = Set(all.filter { share.isMine(PluginFile.name(of: $0)) })
        for path in all {
            guard let identity = FrozenFile.Identity.of(path) else { continue }
            if let before = known[path], before.identity == identity, !isToBeTriedAgain(path, before) {
                pending[path] = nil
                continue
            }
            guard mine.contains(path) || known[path] != nil else {
                pending[path] = nil
                continue
            }
            guard let shape = settledShape(path, identity, now, today) else {
                look.isPending = true
                continue
            }
            if case .loaded? = known[path]?.state, case .truncated = shape {
                // The version that is loaded serves until the next one is whole.
                look.isPending = true
                continue
            }
            pending[path] = nil
            if !catalogue.canCopy, mine.count > Self.filesMax {
                known[path] = Known(identity: identity, file: PluginFile(path: path), state: .refused)
                catalogue.refuse(
                    path,
                    .unreadable(
                        path: path,
                        reason: "there are \(mine.count) plugins for one filter worker; \(Self.filesMax) are the most"))
                continue
            }
            guard catalogue.canCopy else {
                look.stale = "\(path) is new and this process takes no more files"
                return look
            }
            take(path, identity, shape, share, &look)
            if look.stale != nil { return look }
        }
        lookForGone(Set(all), now, &look)
        return look
    }

    /// nil: not yet whole, or not yet sure.
    private func settledShape(
        _ path: String, _ identity: FrozenFile.Identity, _ now: Int64, _ today: Int64
    ) -> LibraryShape? {
        let shape = LibraryShape.of(path)
        // Whole, and at peace since before this process looked for the first time.
        if shape == .whole, today &- identity.modified > Self.quiet { return shape }
        guard let waiting = pending[path], waiting.identity == identity else {
            pending[path] = Pending(identity: identity, since: now)
            return nil
        }
        if case .truncated = shape { return now - waiting.since >= Self.abandoned ? shape : nil }
        return now - waiting.since >= Self.quiet ? shape : nil
    }

    private func take(
        _ path: String, _ identity: FrozenFile.Identity, _ shape: LibraryShape, _ share: Share, _ look: inout Look
    ) {
        do throws(SystemError) {
            let checksum = try FrozenFile.checksum(of: path)
            let file = PluginFile(path: path, checksum: checksum)
            if case .loaded(let plugin)? = known[path]?.state {
                // The same bytes anew are no other plugin.
                if plugin.file == file {
                    known[path]?.identity = identity
                } else {
                    look.stale = "\(path) was replaced"
                }
                return
            }
            guard share.takesRecorded || catalogue.conduct?.history(file) == nil else {
                known[path] = Known(identity: identity, file: file, state: .left)
                return
            }
            known[path] = Known(identity: identity, file: file, state: .refused)
            look.new += 1
            if case .truncated(let bytes) = shape {
                return catalogue.refuse(path, .truncated(path: path, bytes: bytes))
            }
            load(path, identity, file, &look)
        } catch {
            known[path] = Known(identity: identity, file: PluginFile(path: path), state: .refused)
            catalogue.refuse(path, .unreadable(path: path, reason: SystemError.text(error.errno)))
        }
    }

    private func load(
        _ path: String, _ identity: FrozenFile.Identity, _ file: PluginFile, _ look: inout Look
    ) {
        do {
            let image = try catalogue.copy(path)
            guard image == nil || image?.identity == identity else {
                known[path] = nil
                look.isPending = true
                return
            }
            let plugin =
                if let image { try catalogue.loadCopy(image, path: path) } else { try catalogue.load(path: path) }
            known[path]?.state = .loaded(plugin)
        } catch let error as SystemError {
            if error.errno == ESTALE {
                known[path] = nil
                look.isPending = true
            } else {
                catalogue.refuse(path, .unreadable(path: path, reason: SystemError.text(error.errno)))
            }
        } catch {
            // Recorded and logged by the catalogue.
            known[path]?.state = .refused
        }
    }

    /// A record that was forgotten or pardoned opens the door again, and so does a permission that was given.
    private func isToBeTriedAgain(_ path: String, _ known: Known) -> Bool {
        guard mine.contains(path) else { return false }
        switch known.state {
        case .loaded: return false
        case .left: return catalogue.conduct?.history(known.file) == nil
        case .refused:
            switch catalogue.refusals[path] {
            case .harmful: return catalogue.conduct?.refusal(known.file) == nil
            case .unreadable: return known.identity.isReadable(path)
            default: return false
            }
        }
    }

    private func lookForGone(_ present: Set<String>, _ now: Int64, _ look: inout Look) {
        for path in known.keys.sorted() where !present.contains(path) {
            guard let waiting = pending[path], waiting.identity == nil else {
                pending[path] = Pending(identity: nil, since: now)
                look.isPending = true
                continue
            }
            guard now - waiting.since >= Self.quiet else {
                look.isPending = true
                continue
            }
            if case .loaded? = known[path]?.state {
                look.stale = "\(path) was removed"
                return
            }
            known[path] = nil
            pending[path] = nil
            catalogue.forget(refusalOf: path)
        }
        for path in pending.keys where known[path] == nil && !present.contains(path) { pending[path] = nil }
    }

    /// The types this process serves for others: of its own files, without those whose record is another worker's
    /// business.
    package func types(_ share: Share) -> [String] {
        known.sorted { $0.key < $1.key }.compactMap { path, known in
            guard case .loaded(let plugin) = known.state, mine.contains(path) else { return nil }
            return share.takesRecorded || plugin.history == nil ? plugin.type : nil
        }
    }

    /// Forgets what this worker holds against the plugins of this name: a file's name, that without `lib` and `.so`, or
    /// the plugin's own.
    package func pardon(_ name: String) -> Bool {
        var found = false
        for known in known.values {
            var isMeant = known.file.isCalled(name)
            if case .loaded(let plugin) = known.state {
                isMeant = isMeant || plugin.name == name || plugin.type == name
            }
            if isMeant, catalogue.conduct?.pardon(known.file) == true { found = true }
        }
        return found
    }

    /// Of a file that was looked at, for people.
    package struct Entry {
        /// Absolute.
        package var path: String
        /// nil: not loaded.
        package var plugin: FilterPlugin?
        /// Why it was not taken.
        package var refusal: String?
        /// It waits for its file to be whole.
        package var isPending: Bool
        /// What is known against it.
        package var history: String?
        /// Milliseconds for which it is not called.
        package var pause: Int64?
        /// This worker's, not another's.
        package var isMine: Bool
        /// When the file that was looked at was changed last, nanoseconds since 1970; 0: none was.
        package var modified: Int64
    }

    /// Every file this process knows of, by path.
    package var entries: [Entry] {
        Set(known.keys).union(pending.keys).sorted().map { path in
            let known = known[path]
            var plugin: FilterPlugin?
            if case .loaded(let loaded)? = known?.state { plugin = loaded }
            return Entry(
                path: path, plugin: plugin, refusal: catalogue.refusals[path]?.description,
                isPending: pending[path] != nil, history: known.flatMap { catalogue.conduct?.history($0.file) },
                pause: known.flatMap { catalogue.conduct?.pause($0.file) }, isMine: mine.contains(path),
                modified: known?.identity.modified ?? 0)
        }
    }

    /// Nanoseconds.
    package static func clock(_ clock: Int32) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
