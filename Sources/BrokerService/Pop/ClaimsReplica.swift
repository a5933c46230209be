import Claims
import Logging
import NIOCore
import WorkerProtocol

/// A slave's copy of its master's claims. It puts the questions of `ClaimMirror` to the master, by way of the
/// replication worker. A thread of its own writes the answers. Confined to the broker's event loop.
final class ClaimsReplica {
    /// Milliseconds until the master is asked again when there is no more.
    static let pauseMilliseconds: Int64 = 250
    /// When there was no answer: the master, or the way to it, is away.
    static let retryMilliseconds: Int64 = 1000
    /// When an answer could not be used, or written.
    static let faultMilliseconds: Int64 = 5000
    /// A master that does not know the question may be replaced by one that does.
    static let unknownMilliseconds: Int64 = 60_000
    /// A question that got no answer is asked again: the replication worker may have been restarted.
    static let patienceMilliseconds: Int64 = 10_000
    /// What a power cut takes is delivered again.
    static let synchronizeMilliseconds: Int64 = 1000
    /// A copy that has not been as far as the master for so long is late, which is said.
    static let lateMilliseconds: Int64 = 60_000

    private let environment: BrokerEnvironment
    private let mirror: ClaimMirror
    private let files: any BackgroundWork
    private var question: [UInt8] = []
    /// The last one; answers to others come too late.
    private var request: UInt64 = 0
    private var isWaiting = false
    /// To ask, or ask again; nil while an answer is written.
    private var timer: Scheduled<Void>?
    private var synchronizedAtSteady: Int64 = 0
    private var isStopped = false
    /// Why there is no answer, once it was logged.
    private var said: ClaimsAnswer?
    /// When the copy was last as far as the master; at first, when it began.
    private var currentAtSteady: Int64 = 0
    private var isLate = false

    init(_ environment: BrokerEnvironment, folder: String) {
        self.environment = environment
        files = environment.makeWork()
        mirror = ClaimMirror(folder: folder, disk: environment.disk, logger: environment.logger)
    }

    /// How long the copy has not been as far as the master, milliseconds. It is 0 while the lag is what one question
    /// takes, and where the master hands out no claims.
    var behindMilliseconds: Int64 {
        guard said != .unknown else { return 0 }
        let behind = environment.steady() - currentAtSteady
        return behind > Self.lateMilliseconds ? behind : 0
    }

    func start() {
        currentAtSteady = environment.steady()
        files.submit({ [mirror] in mirror.begin() }) { [self] in follow($0) }
    }

    /// There is a new replication worker: what was asked of the one before gets no answer.
    func connected() {
        if timer != nil { ask() }
    }

    /// Nothing more is asked; completes when what is being written is.
    func finish() -> EventLoopFuture<Void> {
        isStopped = true
        timer?.cancel()
        let done = environment.eventLoop.makePromise(of: Void.self)
        files.submit({}) { done.succeed() }
        return done.futureResult
    }

    /// What is being written is finished, nothing more is asked.
    func stop() {
        isStopped = true
        timer?.cancel()
        files.stop()
    }

    /// The replication worker's answer.
    func answered(_ number: UInt64, _ answer: ClaimsAnswer) {
        guard number == request, isWaiting, !isStopped else { return }
        isWaiting = false
        timer?.cancel()
        timer = nil
        switch answer {
        case .answered(let bytes):
            let steady = environment.steady()
            // What it missed meanwhile it has yet to copy: that is no lag of this slave's making.
            if said != nil { currentAtSteady = steady }
            said = nil
            let isTime = steady - synchronizedAtSteady >= Self.synchronizeMilliseconds
            if isTime { synchronizedAtSteady = steady }
            files.submit({ [mirror] in mirror.take(bytes, synchronize: isTime) }) { [self] in follow($0) }
        case .unknown:
            if said == answer { return askAgain(in: Self.unknownMilliseconds) }
            environment.logger.notice(
                """
                the master does not hand out its claims of popped messages (it is RocketMQ's, or an older Apus); \
                if this slave becomes the master, messages that are in hands then are delivered again at once
                """)
            said = answer
            files.submit({ [mirror] in mirror.forget() }) { [self] in
                question = $0.question
                askAgain(in: Self.unknownMilliseconds)
            }
        case .failed(let reason):
            // That the master is away others say already.
            if said == nil { environment.logger.info("the master's claims are asked for again: \(reason)") }
            said = answer
            askAgain(in: Self.retryMilliseconds)
        }
    }

    private func follow(_ step: ClaimMirror.Step) {
        question = step.question
        switch step.pace {
        case .atOnce:
            sayIfLate()
            ask()
        case .soon:
            currentAtSteady = environment.steady()
            if isLate {
                isLate = false
                environment.logger.notice("the copy of the master's claims of popped messages has caught up")
            }
            askAgain(in: Self.pauseMilliseconds)
        case .later: askAgain(in: Self.faultMilliseconds)
        }
    }

    /// Answers come, and each brings more: the master's claims grow as fast as they are copied. That there are no
    /// answers, or that they cannot be written, is said where it happens.
    private func sayIfLate() {
        guard !isLate, behindMilliseconds > 0 else { return }
        isLate = true
        environment.logger.warning(
            """
            the copy of the master's claims of popped messages has been behind for \(behindMilliseconds / 1000) s: the \
            disk or the network of this slave is too slow for the master's pops; if this slave becomes the master now, \
            messages popped or acknowledged since then are delivered again
            """)
    }

    private func ask() {
        guard !isStopped else { return }
        request += 1
        isWaiting = true
        askAgain(in: Self.patienceMilliseconds)
        guard environment.platform.askForClaims(request: request, question: question) else {
            isWaiting = false
            return askAgain(in: Self.retryMilliseconds)
        }
    }

    private func askAgain(in milliseconds: Int64) {
        guard !isStopped else { return }
        timer?.cancel()
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        timer = environment.eventLoop.scheduleTask(in: .milliseconds(milliseconds)) { this.value.ask() }
    }
}
