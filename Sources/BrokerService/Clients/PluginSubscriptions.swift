import FastJSON

/// What one consumer group wants of one topic by an expression that needs a filter plugin.
package struct PluginSubscription: Hashable, Sendable {
    /// The group's name, as its consumers registered it.
    package var group: String
    /// The topic's name, as they subscribed to it.
    package var topic: String
    /// The expression's type: that of the plugin it is compiled by.
    package var type: String
    /// What the plugin compiles, as the consumers sent it.
    package var expression: String
    /// The types of the plugins it calls besides: `PLUGIN('TYPE', …)` inside SQL92.
    package var calls: [String]

    /// For the order in which people see them, which is the same as long as nothing changes.
    var order: (String, String, String) { (group, topic, expression) }
}

extension ConsumerGroup {
    /// Those of its subscriptions that are not by tags: tags are compared without a plugin once compiled, and nearly
    /// every client has some.
    fileprivate var pluginSubscriptions: [PluginSubscription] {
        subscriptions.values.compactMap { subscription in
            guard case .compiled(let compiled) = subscription.filter, !SubscriptionFilter.isTagType(compiled.type)
            else {
                return nil
            }
            return PluginSubscription(
                group: name, topic: subscription.topic, type: compiled.type, expression: compiled.expression,
                calls: compiled.calls)
        }
    }
}

extension ConsumerManager {
    /// The groups that depend on filter plugins, sorted. Looks at all groups, in slices of the event loop.
    func pluginSubscriptions(in slices: SlicedWork, then: @escaping ([PluginSubscription]) -> Void) {
        copy(\.pluginSubscriptions, in: slices) { found in
            then(found.flatMap { $0 }.sorted { $0.order < $1.order })
        }
    }
}

/// The consumer groups that depend on filter plugins, as a broker reports them to its supervisor.
package struct PluginSubscriptionReport {
    private static let expressionMax = 200

    /// `{"subscriptions":[{"group","topic","type","expression","calls"}…],"subscriptionCount":N}` of at most `bytesMax`
    /// bytes: the first ones, and how many there are.
    package static func json(_ subscriptions: [PluginSubscription], bytesMax: Int) -> String {
        var bytes = 64
        var shown: [JSONValue] = []
        for subscription in subscriptions {
            let value = JSONValue.fields([
                ("group", .string(subscription.group)), ("topic", .string(subscription.topic)),
                ("type", .string(subscription.type)),
                ("expression", .string(String(subscription.expression.prefix(expressionMax)))),
                ("calls", .strings(subscription.calls)),
            ])
            bytes += value.text().utf8.count + 1
            guard bytes <= bytesMax else { break }
            shown.append(value)
        }
        return JSONValue.fields([
            ("subscriptions", .array(shown)), ("subscriptionCount", .integer(subscriptions.count)),
        ]).text()
    }
}
