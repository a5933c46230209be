/// The load generator behind `apus bench`.
///
/// It talks to any RocketMQ name server and broker over its own thin connections (raw epoll, pre-encoded frames). So
/// the same tool measures Apus and Apache RocketMQ, and costs a fraction of what it measures. It knows nothing of Apus.
package enum Bench {
    /// Runs a plan on the calling thread until its end.
    ///
    /// - Parameter progress: called about once a second, on the same thread.
    /// - Throws: `BenchError` when the run cannot start: no name server, no route, a wrong option.
    package static func run(
        _ plan: BenchPlan, progress: @escaping (BenchProgress) -> Void = { _ in }
    ) throws(BenchError) -> BenchReport {
        try plan.check()
        let run = try Run(plan: plan, progress: progress)
        try run.start()
        try run.loop()
        return BenchReport(run)
    }
}
