import MessageModel
import StoreFormat

/// The properties of one message as a list that can be changed. It is for the paths where a message is stored a second
/// time (send-back, delayed delivery). The send path uses `StoredProperties`, which makes no strings.
struct PropertyList {
    private(set) var pairs: [(name: String, value: String)] = []

    init() {}

    init(_ bytes: UnsafeRawBufferPointer) {
        MessageProperties.forEach(in: bytes) { name, value in
            // A checksum is of the record it was read from.
            if name.matches(PropertyName.recordCRC) { return }
            self[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
        }
    }

    subscript(name: StaticString) -> String? {
        get { self["\(name)"] }
        set { self["\(name)"] = newValue }
    }

    subscript(name: String) -> String? {
        get { pairs.last { $0.name == name }?.value }
        set {
            if let index = pairs.firstIndex(where: { $0.name == name }) {
                if let newValue { pairs[index].value = newValue } else { pairs.remove(at: index) }
            } else if let newValue {
                pairs.append((name, newValue))
            }
        }
    }

    /// Takes out all others.
    mutating func keep(_ names: [StaticString]) {
        pairs.removeAll { pair in !names.contains { "\($0)" == pair.name } }
    }

    /// When the message wants to be delivered, if it states that.
    func timerRequest(now: Int64, maxDelay: Int64) -> TimerProperties.Delivery {
        let prefix = "\(PropertyName.timerRequestPrefix)"
        guard pairs.contains(where: { $0.name.hasPrefix(prefix) }) else { return .now }
        return bytes.withUnsafeBytes { TimerProperties.request($0, now: now, maxDelay: maxDelay) }
    }

    mutating func makeTimer(due: Int64, topic: String, queueID: Int32) {
        self[PropertyName.timerOutMilliseconds] = String(due)
        self[PropertyName.realTopic] = topic
        self[PropertyName.realQueueID] = String(queueID)
    }

    var bytes: [UInt8] {
        var result: [UInt8] = []
        for (name, value) in pairs {
            if !result.isEmpty { result.append(MessageProperties.propertySeparator) }
            result.append(contentsOf: name.utf8)
            result.append(MessageProperties.nameValueSeparator)
            result.append(contentsOf: value.utf8)
        }
        return result
    }
}
