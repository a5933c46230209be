import FilterEngine
import Glibc
import LinuxSystem
import Logging
import NIOCore
import WorkerKit
import WorkerProtocol

/// The filter process: loads the plugins, answers the broker-stores, owns nothing. Killed and restarted at will.
final class FilterWorker: Worker {
    static let kind = WorkerKind.filter

    private let environment: WorkerEnvironment
    private let catalogue: FilterCatalogue
    private let service: FilterService
    private var links: [Int: PeerLink] = [:]
    private var releaseScheduled = false

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let logger = environment.logger
        catalogue = FilterCatalogue(logger: logger)
        // The plugins that come with Apus lie beside the workers; one's own go to a folder of one's own.
        let own = try Self.ownFolder()
        catalogue.load(directory: own) { name in
            FilterCatalogue.isPluginName(name) && name.hasPrefix("libApus") && name.hasSuffix("Filter.so")
        }
        let folder = environment.settings.string("pluginDirectory", default: "")
        if !folder.isEmpty, folder != own { catalogue.load(directory: folder) }
        service = FilterService(catalogue: catalogue, disk: RealDisk(), logger: logger)
    }

    func start() -> EventLoopFuture<String> {
        environment.eventLoop.makeSucceededFuture(service.status)
    }

    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        guard kind == .brokerStore else {
            environment.logger.error("introduced to \(kind.rawValue), which the filter worker does not talk to")
            close(descriptor)
            return
        }
        links[index]?.close()
        service.storeReplaced(index: index)
        do {
            let watermarks = try environment.segment(index == 0 ? "watermarks" : "watermarks#\(index)")
            service.addStore(index: index, directory: commitLogFolder(index), watermarks: watermarks)
        } catch {
            environment.logger.error("broker-store \(index) cannot be served: \(error)")
            close(descriptor)
            return
        }
        links[index] = PeerLink.attach(descriptor, on: environment.eventLoop) { [weak self] message in
            self?.received(message, from: index)
        } closed: { [weak self] in
            self?.links[index] = nil
            self?.service.storeReplaced(index: index)
        }
    }

    private func received(_ message: WorkerMessage, from index: Int) {
        if let answer = service.answer(message, store: index) { links[index]?.send(answer) }
        guard case .filterBatch = message, !releaseScheduled else { return }
        releaseScheduled = true
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .seconds(1)) {
            worker.value.releaseScheduled = false
            worker.value.service.releaseWindows()
        }
    }

    func drain() -> EventLoopFuture<Void> {
        // Answers already made leave with the links' last flush; a question without an answer is asked again.
        environment.eventLoop.makeSucceededVoidFuture()
    }

    func status() -> String { service.status }

    /// `storePathCommitLog`, by default `commitlog` below `storePathRootDir`, both with `#N` for a further broker-store.
    private func commitLogFolder(_ index: Int) -> String {
        let suffix = index == 0 ? "" : "#\(index)"
        let settings = environment.settings
        if let path = settings["storePathCommitLog\(suffix)"], !path.isEmpty { return path }
        return settings.string("storePathRootDir\(suffix)", default: "store") + "/commitlog"
    }

    private static func ownFolder() throws -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX))
        let length = readlink("/proc/self/exe", &path, path.count)
        guard length > 0 else { throw WorkerError("cannot tell where apus-filter lies: errno \(errno)") }
        let text = String(decoding: path[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return String(text[..<(text.lastIndex(of: "/") ?? text.endIndex)])
    }
}
