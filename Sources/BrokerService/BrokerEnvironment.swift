import LinuxSystem
import Logging
import MessageModel
import NIOCore
import RemotingProtocol
import SettingTable
import StoreFormat

/// What every part of the broker may know: which broker this is, and what it runs on. Made once by `Broker`; confined
/// to its event loop.
final class BrokerEnvironment {
    /// As it holds now: operators change it while the broker runs (`BrokerSettings`).
    var configuration: BrokerConfiguration
    /// The address in message identifiers and records.
    let storeHost: HostAddress
    let disk: any Disk
    let eventLoop: any EventLoop
    let logger: Logger
    /// Milliseconds since 1970.
    let now: () -> Int64
    /// Milliseconds of a clock that is never set.
    let steady: () -> Int64
    /// Milliseconds of each level of `messageDelayLevel`.
    let delayLevels: [Int64]
    let timerSettings: TimerSettings
    /// Region and trace switch, which every answer to a send carries.
    let sendResponseFields: [(String, String)]
    let slices: SlicedWork
    /// Measures the broker's own work on the loop.
    let meter = WorkMeter()

    /// Where files and texts are worked on; `nil`: on threads of their own.
    private let work: (any BackgroundWork)?
    /// Where the table of offsets is written: it may be large, and nothing waits for it.
    private(set) lazy var offsetWork: any BackgroundWork = makeWork()
    /// Where texts of large tables are made: apart from the files, so that a slow disk delays no answer.
    private(set) lazy var textWork: any BackgroundWork = makeWork()

    /// - Parameters:
    ///   - storeHost: the broker's address, IPv4.
    ///   - work: does all background work; `nil` starts threads as they are needed.
    ///   - now: milliseconds since 1970.
    ///   - steady: milliseconds of a clock that is never set.
    init(
        configuration: BrokerConfiguration, storeHost: HostAddress, disk: any Disk,
        eventLoop: any EventLoop, logger: Logger, work: (any BackgroundWork)?, now: @escaping () -> Int64,
        steady: @escaping () -> Int64
    ) {
        self.configuration = configuration
        self.storeHost = storeHost
        self.disk = disk
        self.eventLoop = eventLoop
        self.logger = logger
        self.work = work
        self.now = now
        self.steady = steady
        delayLevels = configuration.delayLevels
        timerSettings = TimerSettings(configuration)
        sendResponseFields = [
            ("\(PropertyName.region)", configuration.regionID),
            ("\(PropertyName.traceSwitch)", configuration.traceOn ? "true" : "false"),
        ]
        slices = SlicedWork(eventLoop: eventLoop, meter: meter)
    }

    /// The process around the broker.
    var platform: any BrokerPlatform { meter.platform }

    /// A worker for files of one purpose.
    func makeWork() -> any BackgroundWork { work ?? BackgroundThread(eventLoop: eventLoop) }

    /// Asks for the end of a tick after what runs now.
    func scheduleTick() { platform.requestTick() }
}

/// Reports to the platform which work of the broker's own takes longer than a millisecond. Confined to the event loop.
final class WorkMeter {
    /// Set by `Broker.open`; it owns the broker.
    fileprivate(set) unowned var platform: any BrokerPlatform = NoPlatform.shared

    /// Runs a piece of work and reports it if it takes long.
    /// - Parameter name: the work's name for operators; made only when it is reported.
    func measured<Result>(_ name: @autoclosure () -> String, _ work: () -> Result) -> Result {
        let began = NIODeadline.now()
        let result = work()
        let took = NIODeadline.now() - began
        if took > .milliseconds(1) { platform.workTookLong(name(), took) }
        return result
    }
}

extension BrokerEnvironment {
    /// The broker is opened on this platform, which outlives it.
    func attach(_ platform: any BrokerPlatform) { meter.platform = platform }
}
