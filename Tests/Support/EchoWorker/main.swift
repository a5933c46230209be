// A worker of any kind for the tests of the supervisor: it is what it is called (apus-nameserver, …) and does what a
// line on its listener says. Every answer is one line.
//
//   echo TEXT     TEXT
//   pid           its process id
//   peers         the peers whose links are up, with what they said last: replication-0=hello
//   tell TEXT     sends TEXT to all peers
//   setting KEY   the setting's value
//   slot N        slot N of the segment it may read or write
//   store N V     stores V there
//   busy N        keeps its event loop for N milliseconds
//   crash, hang, refuse REASON
//   chatter       reports to the supervisor without end, as fast as it can
//
// Settings: echoRefuse = fail at start with this reason; echoDrainMillis = how long draining takes.

import Foundation
import LinuxSystem
import NIOCore
import NIOPosix
import WorkerKit
import WorkerProtocol

class EchoWorker {
    private let environment: WorkerEnvironment
    private var peers: [WorkerID: (link: PeerLink, said: String)] = [:]
    private var settings: Settings
    private var server: (any Channel)?

    required init(environment: WorkerEnvironment) throws {
        self.environment = environment
        settings = environment.settings
        if let reason = settings["echoRefuse"], settings["echoRefuseKind"] == environment.kind.rawValue {
            throw WorkerError(reason)
        }
    }

    func start() -> EventLoopFuture<String> {
        let loop = environment.eventLoop
        guard let listener = environment.takeListener("remoting") ?? environment.takeListener("ha") else {
            return loop.makeSucceededFuture("no listener")
        }
        let worker = NIOLoopBound(self, eventLoop: loop)
        return ServerBootstrap(group: loop)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(LineHandler { worker.value.answer($0) })
                }
            }
            .withBoundSocket(listener)
            .map { channel in
                worker.value.server = channel
                return channel
            }
            .map { (channel: any Channel) in channel.localAddress }
            .map { "\($0?.ipAddress ?? "?"):\($0?.port ?? 0)" }
    }

    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        let id = WorkerID(kind, index)
        // Else the end of the former link, noticed after this, would take the new one away.
        peers[id]?.link.close()
        let link = PeerLink.attach(
            descriptor, on: environment.eventLoop,
            receive: { [unowned self] message in
                if case .filterCompile(_, _, let text) = message { peers[id]?.said = text }
            }, closed: { [unowned self] in peers[id] = nil })
        peers[id] = (link, "")
    }

    func drain(_ reason: DrainReason) -> EventLoopFuture<Void> {
        let loop = environment.eventLoop
        server?.close(promise: nil)
        return loop.scheduleTask(in: .milliseconds(Int64(settings.int("echoDrainMillis", default: 0)))) {}.futureResult
    }

    func reload(settings: Settings) { self.settings = settings }

    func status() -> String { "\(peers.count) peers" }

    private static func report() {
        let bytes = WorkerMessage.report(json: "{}").encoded()
        // Descriptor 3 is the control channel.
        try? bytes.withUnsafeBytes { try DescriptorPassing.send($0, to: 3, wait: true) }
    }

    private func answer(_ line: String) -> String {
        let words = line.split(separator: " ", maxSplits: 1).map(String.init)
        let rest = words.count > 1 ? words[1] : ""
        switch words.first {
        case "echo": return rest
        case "pid": return String(getpid())
        case "peers": return peers.map { "\($0.key)=\($0.value.said)" }.sorted().joined(separator: " ")
        case "tell":
            for peer in peers.values { peer.link.send(.filterCompile(request: 0, type: "", expression: rest)) }
            return "told"
        case "setting": return settings[rest] ?? "-"
        case "slot":
            return (try? environment.segment("watermarks").atomicLoad(slot: Int(rest) ?? 0)).map(String.init) ?? "-"
        case "store":
            let numbers = rest.split(separator: " ").compactMap { UInt64($0) }
            guard numbers.count == 2, let segment = try? environment.segment("watermarks") else { return "-" }
            segment.atomicStore(slot: Int(numbers[0]), numbers[1])
            return "stored"
        case "busy":
            let microseconds = (UInt32(rest) ?? 0) * 1000
            environment.eventLoop.execute { usleep(microseconds) }
            return "begins"
        case "crash": abort()
        case "hang": while true { poll(nil, 0, -1) }
        case "chatter":
            for _ in 0..<2 { Thread.detachNewThread { while true { Self.report() } } }
            return "chattering"
        case "refuse":
            environment.fail(rest)
            return ""
        default: return "?"
        }
    }
}

final class LineHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let answer: (String) -> String
    private var received = ""

    init(answer: @escaping (String) -> String) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received += String(buffer: unwrapInboundIn(data))
        while let end = received.firstIndex(of: "\n") {
            let line = String(received[..<end])
            received.removeSubrange(...end)
            context.writeAndFlush(NIOAny(ByteBuffer(string: answer(line) + "\n")), promise: nil)
        }
    }
}

/// Of the kind its name says.
final class NamedEchoWorker: EchoWorker, Worker {
    static let kind: WorkerKind = {
        let name = CommandLine.arguments.first?.split(separator: "/").last.map(String.init) ?? ""
        return WorkerKind(rawValue: name.hasPrefix("apus-") ? String(name.dropFirst("apus-".count)) : "filter")
    }()
}

WorkerMain.run(NamedEchoWorker.self)
