/// The broker's settings for timer messages.
struct TimerSettings {
    /// RocketMQ 5 allows three days; nothing here asks for less than a year.
    static let maxDelaySeconds: Int64 = 366 * 86_400

    /// Milliseconds (`timerMaxDelaySec`).
    let maxDelay: Int64
    /// `recallMessageEnable`; on unless switched off.
    let isRecallEnabled: Bool

    init(_ configuration: BrokerConfiguration) {
        let seconds = configuration.integer("timerMaxDelaySec") ?? Self.maxDelaySeconds
        maxDelay = min(max(seconds, 0), 10 * Self.maxDelaySeconds) * 1000
        isRecallEnabled = configuration.flag("recallMessageEnable") ?? true
    }
}
