/// The language a peer states it is written in (`LanguageCode`). Names unknown to RocketMQ read as `.other`.
package enum LanguageCode: UInt8, CaseIterable, Sendable {
    case java = 0
    case cpp = 1
    case dotnet = 2
    case python = 3
    case delphi = 4
    case erlang = 5
    case ruby = 6
    case other = 7
    case http = 8
    case go = 9
    case php = 10
    case oms = 11
    case rust = 12

    /// The name as it stands in JSON headers.
    package var name: StaticString {
        switch self {
        case .java: "JAVA"
        case .cpp: "CPP"
        case .dotnet: "DOTNET"
        case .python: "PYTHON"
        case .delphi: "DELPHI"
        case .erlang: "ERLANG"
        case .ruby: "RUBY"
        case .other: "OTHER"
        case .http: "HTTP"
        case .go: "GO"
        case .php: "PHP"
        case .oms: "OMS"
        case .rust: "RUST"
        }
    }

    init(name: UnsafeRawBufferPointer) {
        // Nearly every frame contains JAVA or CPP.
        if name.equals("JAVA") {
            self = .java
        } else if name.equals("CPP") {
            self = .cpp
        } else {
            self = LanguageCode.allCases.first { name.equals($0.name) } ?? .other
        }
    }
}

/// Protocol versions (`MQVersion`): ordinals of RocketMQ releases, carried in every header.
package enum RemotingVersion {
    /// V4_9_8: what Apus reports.
    package static let current: Int32 = 409
    /// V3_0_11: the first broker that registers with a `RegisterBrokerBody`; older ones send the topic table alone.
    package static let registerBrokerBody: Int32 = 37
    /// V4_9_4: clients from here on read route data as standard JSON.
    package static let standardJSONRoute: Int32 = 401
}

/// How the header of a frame is written; a response uses the request's.
package enum HeaderSerialization: UInt8, Sendable {
    case json = 0
    case rocketMQ = 1
}
