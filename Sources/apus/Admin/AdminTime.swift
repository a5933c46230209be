import Glibc
import RocketMQClient

/// Local times in RocketMQ's spellings.
enum AdminTime {
    /// `2026-11-21 17:17:01`
    static func seconds(_ milliseconds: Int64) -> String {
        let time = broken(milliseconds)
        return
            "\(two(time.tm_year + 1900))-\(two(time.tm_mon + 1))-\(two(time.tm_mday)) "
            + "\(two(time.tm_hour)):\(two(time.tm_min)):\(two(time.tm_sec))"
    }

    /// `2026-11-21 17:17:01,123`
    static func milliseconds(_ milliseconds: Int64) -> String {
        let rest = String(milliseconds % 1000 + 1000).dropFirst()
        return "\(seconds(milliseconds)),\(rest)"
    }

    /// Milliseconds since 1970, `now`, or a local time `2026-11-21#17:17:01:123`; nil for anything else.
    static func parse(_ text: String) -> Int64? {
        if text == "now" { return WallClock.milliseconds }
        if let number = Int64(text) { return number }
        let numbers = text.split { "-#:".contains($0) }.compactMap { Int32($0) }
        guard numbers.count == 7, text.contains("#") else { return nil }
        var time = tm()
        time.tm_year = numbers[0] - 1900
        time.tm_mon = numbers[1] - 1
        time.tm_mday = numbers[2]
        time.tm_hour = numbers[3]
        time.tm_min = numbers[4]
        time.tm_sec = numbers[5]
        time.tm_isdst = -1
        let seconds = mktime(&time)
        return seconds == -1 ? nil : Int64(seconds) * 1000 + Int64(numbers[6])
    }

    private static func broken(_ milliseconds: Int64) -> tm {
        var seconds = time_t(milliseconds / 1000)
        var time = tm()
        localtime_r(&seconds, &time)
        return time
    }

    private static func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : String(number) }
}
