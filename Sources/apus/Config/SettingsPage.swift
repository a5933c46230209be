import SettingTable
import Supervision

/// apus.toml(5), made of the catalogue.
enum SettingsPage {
    static var text: String {
        var lines = [
            ".TH APUS.TOML 5 \"\" \"Apus \(ApusRelease.version)\" \"File formats\"",
            ".SH NAME", "apus.toml \\- settings of the Apus message broker platform",
            ".SH SYNOPSIS", "/etc/apus/apus.toml",
            ".SH DESCRIPTION",
            "A TOML file. The keys are those of RocketMQ's broker.conf and namesrv.conf, with their meanings and",
            "defaults.",
            "Keys outside any table hold for every broker; a table \\fB[nameserver]\\fR is for the name server,",
            "\\fB[filter]\\fR for the filter workers, \\fB[gateway]\\fR for HTTP,",
            "and each \\fB[[broker]]\\fR is one broker with its own",
            "store and port:",
            ".PP", ".nf", ".RS", "namesrvAddr = \"10.0.0.1:9876\"", "flushDiskType = \"ASYNC_FLUSH\"", "",
            "[[broker]]", "brokerName = \"broker\\-a\"", "storePathRootDir = \"/data0/store\"", "listenPort = 10911",
            "", "[[broker]]", "brokerName = \"broker\\-b\"", "storePathRootDir = \"/data1/store\"",
            "listenPort = 20911", ".RE", ".fi", ".PP",
            "A file that is not called .toml is read as RocketMQ's properties (key=value).",
            "\\fBapus config check\\fR says what is wrong with a file, \\fBapus config show\\fR what becomes of it,",
            "\\fBapus config import\\fR makes one of RocketMQ's files.",
            "Most settings can be changed by \\fBsystemctl reload apus\\fR;",
            "what is fixed while the platform runs is reported then.",
        ]
        for section in Setting.Section.allCases {
            lines.append(".SH \"\(roff(section.rawValue.uppercased()))\"")
            for setting in SettingTable.all where setting.section == section {
                lines += [
                    ".TP", "\\fB\(roff(setting.name))\\fR\(standard(setting))",
                    roff("\(setting.meaning). Takes \(setting.type.expectation)\(change(setting))."),
                ]
            }
        }
        lines += limits
        lines += [
            ".SH \"WHAT APUS DOES NOT HAVE\"",
            "A setting of RocketMQ's that promises protection, copies or messages Apus does not have (aclEnable,",
            "tls.*, enableDLegerCommitLog, enableControllerMode, authenticationEnabled, storeType and others) keeps",
            "the platform from starting, unless \\fBstartWithout\\fR names it. Other settings of RocketMQ's are",
            "without effect; \\fBapus config check\\fR says which are harmless and where to act.",
        ]
        lines += [".SH \"SEE ALSO\"", "\\fBapus\\fR(1), \\fBapusd\\fR(8)", ""]
        return lines.joined(separator: "\n")
    }

    private static var limits: [String] {
        [
            ".SH \"LIMITS OF WORKERS\"",
            "\\fBlimits.\\fIKIND\\fB.\\fIKEY\\fR, with KIND one of nameserver,",
            "broker\\-store, replication, filter and gateway.",
            "By cgroup where the service has one of its own to divide (Delegate=yes), else by resource limits of the",
            "process.",
            ".TP", "\\fBmemory\\fR", "bytes, such as 256M; without a cgroup: of private writable memory.",
            ".TP", "\\fBfiles\\fR", "open files.",
            ".TP", "\\fBtasks\\fR", "processes and threads; needs a cgroup.",
            ".TP", "\\fBcpuWeight\\fR, \\fBioWeight\\fR",
            "1 to 10000; 100 is what every process has. Without a cgroup: nice(2), ioprio_set(2).",
            ".TP", "\\fBcpu\\fR", "percent of one processor at most; needs a cgroup.",
        ]
    }

    private static func change(_ setting: Setting) -> String {
        if case .none(let reason) = setting.effect { return "; without effect: \(reason)" }
        let command = setting.section == .nameserver ? "updateNamesrvConfig" : "updateBrokerConfig"
        return setting.change == .running ? "; changed while running by \(command), too" : ""
    }

    private static func standard(_ setting: Setting) -> String {
        setting.standard.isEmpty ? "" : " (default: \(roff(setting.standard)))"
    }

    private static func roff(_ text: String) -> String {
        let escaped = text.replacing("\\", with: "\\e").replacing("-", with: "\\-")
        return escaped.hasPrefix(".") || escaped.hasPrefix("'") ? "\\&" + escaped : escaped
    }
}
