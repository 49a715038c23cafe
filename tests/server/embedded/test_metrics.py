from tuner.server.embedded.metrics import Counter, Histogram, Metrics


def test_counter_text():
    counter = Counter(":a:b", ("model", "status"))
    assert counter.lines() == []
    counter.add('m"1\\', "OK")
    counter.add('m"1\\', "OK")
    assert counter.lines() == ["# TYPE :a:b counter", ':a:b{model="m\\"1\\\\",status="OK"} 2']


def test_histogram_text_is_cumulative_and_limits_belong_to_the_next_bucket():
    histogram = Histogram(":h", ("kind",), scale=1, growth=2, count=2)
    for value in (0.5, 1, 2, 30):
        histogram.add(value, "x")
    assert histogram.lines() == [
        "# TYPE :h histogram",
        ':h_bucket{kind="x",le="1"} 1',
        ':h_bucket{kind="x",le="2"} 2',
        ':h_bucket{kind="x",le="+Inf"} 4',
        ':h_sum{kind="x"} 33.5',
        ':h_count{kind="x"} 4',
    ]


def test_names_of_the_batching_session():
    metrics = Metrics()
    metrics.batch(rows=3, padded=4)
    text = metrics.text()
    prefix = ":tensorflow:serving:batching_session:"
    assert f"{prefix}wrapped_run_count{{}} 1\n" in text
    assert f"{prefix}processed_batch_size_sum{{}} 4\n" in text
    assert f'{prefix}padding_size_sum{{execution_batch_size="4"}} 1\n' in text
