import Glibc
import LinuxSystem
import MessageModel
import MessageStore
import NIOCore
import SettingTable
import StoreFormat

extension Broker {
    /// Pulls that wait for a message or for the filter worker.
    package var heldPulls: Int { hold.count }

    /// One line for `apus status`.
    package var statusLine: String {
        let time = environment.now()
        let put = storage.statistics.putTps(now: time).split(separator: " ").first.map(String.init) ?? "0"
        let behind = (claimsReplica?.behindMilliseconds ?? 0) / 1000
        let late = behind > 0 ? ", claims \(behind) s behind the master" : ""
        return "\(configuration.brokerName) put \(storage.statistics.putTotal) get \(storage.statistics.getTotal) "
            + "(\(Double(put).map { String(Int($0)) } ?? put)/s in), held pulls \(heldPulls)" + late
    }

    /// Why it takes no messages at present, with the remedy, for people; nil when its store takes them.
    package var trouble: String? { store.notWritable.map { "takes no messages: \($0)" } }

    /// Hands over which connected consumer groups depend on filter plugins, sorted: at once, or after some turns of the
    /// event loop. Does nothing while it is still looking for an earlier call.
    package func reportPluginSubscriptions(_ report: @escaping ([PluginSubscription]) -> Void) {
        guard !isLookingForPluginSubscriptions else { return }
        guard filters.hasPluginExpressions else { return report([]) }
        isLookingForPluginSubscriptions = true
        consumers.pluginSubscriptions(in: slices) { [unowned self] found in
            isLookingForPluginSubscriptions = false
            report(found)
        }
    }
}
