/// What a peer speaks that does not speak RocketMQ's remoting protocol, by the first bytes it sent.
package enum ForeignProtocol {
    /// Names the protocol and what to do about it; nil: not recognised.
    ///
    /// - Parameter bytes: the first of a connection. Four are enough for most.
    package static func advice(_ bytes: UnsafeRawBufferPointer) -> String? {
        guard let (name, remedy) = Self.recognise(bytes) else { return nil }
        return "looks like \(name): \(remedy)"
    }

    private static let wrongPort = "this port speaks RocketMQ's remoting protocol; check the client's address and port"

    private static let prefixes: [(prefix: String, name: String, remedy: String)] = [
        (
            "PRI ", "HTTP/2 or gRPC",
            "clients of RocketMQ 5's gRPC protocol need a proxy; here use a remoting client (rocketmq-client)"
        ),
        ("AMQP", "AMQP", wrongPort),
        ("SSH-", "SSH", wrongPort),
        ("PROXY", "the PROXY protocol", "switch it off at the load balancer for this port"),
        ("\r\n\r\n\0\r\nQ", "the PROXY protocol", "switch it off at the load balancer for this port"),
        ("*", "Redis (RESP)", wrongPort), ("PING", "Redis", wrongPort), ("INFO", "Redis or NATS", wrongPort),
        ("STOM", "STOMP", wrongPort),
        ("CONNECT {", "NATS", wrongPort), ("CONNECT\n", "STOMP", wrongPort), ("CONNECT\r\n", "STOMP", wrongPort),
    ]

    private static let httpMethods = ["GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC", "TRAC", "CONN"]
    private static let http = "no HTTP is served here; health checks can open and close a TCP connection"

    private static func recognise(_ bytes: UnsafeRawBufferPointer) -> (name: String, remedy: String)? {
        func begins(_ text: String) -> Bool { bytes.count >= text.utf8.count && bytes.starts(with: text.utf8) }
        if bytes.count >= 3, bytes[0] == 0x16, bytes[1] == 3, bytes[2] <= 4 {
            return ("TLS", "this server speaks no TLS; switch it off in the client (tls.enable=false)")
        }
        for entry in Self.prefixes where begins(entry.prefix) { return (entry.name, entry.remedy) }
        if Self.httpMethods.contains(where: begins) { return ("HTTP/1", Self.http) }
        // CONNECT, its remaining length in one or two bytes, then the protocol's name with its length.
        if bytes.count >= 8, bytes[0] == 0x10,
            [2, 3].contains(where: { bytes[($0 + 2)...].starts(with: "MQ".utf8) && bytes[$0] == 0 })
        {
            return ("MQTT", Self.wrongPort)
        }
        return Self.isKafka(bytes) ? ("Kafka", "Apus speaks RocketMQ's protocol; use a RocketMQ client") : nil
    }

    /// A request of Kafka's: length 4, API key 2 (to 74 and a few more), its version 2, correlation id 4, client id's
    /// length 2. The first request of a connection has a small correlation id.
    private static func isKafka(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= 14 else { return false }
        func number(_ at: Int) -> Int { Int(bytes[at]) << 8 | Int(bytes[at + 1]) }
        let length = number(0) << 16 | number(2)
        let clientID = Int(Int16(truncatingIfNeeded: number(12)))
        return (10..<(1 << 20)).contains(length) && number(4) <= 100 && number(6) <= 30 && number(8) == 0
            && (-1...length - 10).contains(clientID)
    }
}
