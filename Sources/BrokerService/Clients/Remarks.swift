/// Texts RocketMQ ends remarks with.
enum Remarks {
    static let faq = "\nSee http://rocketmq.apache.org/docs/faq/ for further details."
}
